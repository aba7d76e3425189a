"""The classes of a mask, and the arrays that hold masks.

Labels: 0 background, 1 the target (the person the ROI was drawn for), 2 non-target (any other person).
"""

import numpy as np
from numpy.typing import NDArray

BACKGROUND, TARGET, NON_TARGET = 0, 1, 2
CLASS_NAMES = ("background", "target", "non_target")

Bools = NDArray[np.bool_]
Labels = NDArray[np.uint8]
Floats32 = NDArray[np.float32]
