"""What boxes are worth that no model moved: rows that stand beside the model's in every report (spec 21.12).

A model that isn't clearly above `rough` and `whole_crop` has learnt nothing, and none can be above `clipped_oracle`, whose windows
don't show all of the truth. On the paper's jitter (centre +-10 %, size +-10 %), before anything is clipped at the image border, the
rough box has a mean IoU of .811 where width and height have a ratio each (`jitter.ratios: own`), and of .810 where they share one.
The clipped oracle has .965 at a buffer of 1.1, and 1 from 4/3 on: a box of .9 of the size whose centre is .1 off must reach .6 of
the size from there, and has .45.
"""

import numpy as np

from roiseg.geometry import Floats
from roiseg.snapper.metrics import box_figures
from roiseg.snapper.results import SnapResults


def baseline_boxes(results: SnapResults) -> dict[str, Floats]:
    """Boxes of each baseline, each (N, 4) xyxy, image frame.

    Returns:
        `rough`: the rough box as it came. `whole_crop`: the window itself. `clipped_oracle`: the truth, cut to its window.
    """
    low, high = np.tile(results.windows[:, :2], 2), np.tile(results.windows[:, 2:], 2)
    return {"rough": results.rough, "whole_crop": results.windows, "clipped_oracle": np.clip(results.truth, low, high)}


def baseline_figures(results: SnapResults) -> dict[str, dict[str, float]]:
    """Name of the baseline -> the figures of `roiseg.snapper.metrics`."""
    return {name: box_figures(results, boxes) for name, boxes in baseline_boxes(results).items()}
