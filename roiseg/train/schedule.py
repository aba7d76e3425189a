"""Learning rates as pure functions of the step, so that nothing has to be restored to know them."""

import math


def warmup_cosine(step: int, *, total: int, warmup: int, peak: float, low: float) -> float:
    """Linear warm-up, then half a cosine down to `low` (SGDR, equation 5, one cycle).

    Args:
        step: 0 <= step < total, counted over the whole run.
        total: steps of the run.
        warmup: steps of the warm-up (0 for none); the first one already learns.
        peak: rate at the end of the warm-up.
        low: rate of the last step.
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    share = (step - warmup) / max(total - warmup - 1, 1)
    return low + (peak - low) * (1 + math.cos(math.pi * min(share, 1.0))) / 2
