"""Charts of a run for `dvc plots`: a table for each, with a line for every point, drawn by `.dvc/plots/curves.json`.

One table holds all curves of a chart, whatever parts a loss has: `dvc.yaml` names charts and needn't know their curves.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from roiseg.files import write_bytes

FOLDER = "curves"
CHARTS = ("loss", "learning_rate", "iou", "weights")
IOUS = (
    *("miou_fg_roi", "iou_target_roi", "iou_nontarget_roi", "iou_bg", "never_class_2_miou_fg_roi"),
    *("miou_2class", "iou_person", "iou_background", "agreement"),
    *("mean_iou", "rough_mean_iou", "share_iou_above_90", "edge_share_within_1px", "edge_share_within_3px"),
)
NO_LOSS = ("train_grad_norm", "train_mean_pixel_weight")


def curve_of(name: str) -> tuple[str, str] | None:
    """Chart and curve that a figure of a row belongs to; None if to none.

    Args:
        name: key of a row, such as `train_ce`.
    """
    if name == "train_lr":
        return "learning_rate", "learning rate"
    if name in IOUS:
        return "iou", name
    if name in NO_LOSS:
        return None
    for beginning, chart, what in (("train_", "loss", ""), ("val_", "loss", "validation "), ("weight_", "weights", "")):
        if name.startswith(beginning):
            return chart, what + name.removeprefix(beginning)
    return None


def points(rows: Sequence[Mapping[str, float]]) -> dict[str, list[tuple[int, str, float]]]:
    """Chart -> points as (epoch, curve, value), for all charts, those without a point among them."""
    found: dict[str, list[tuple[int, str, float]]] = {chart: [] for chart in CHARTS}
    for row in rows:
        for name, value in row.items():
            place = curve_of(name)
            if place is not None:
                found[place[0]].append((int(row["epoch"]), place[1], value))
    return found


def write_curves(rows: Sequence[Mapping[str, float]], folder: Path) -> None:
    """Write `curves/{chart}.tsv`, each whole or not at all.

    Args:
        rows: see `roiseg.train.log.Row`.
        folder: `metrics/train/{head}`.
    """
    for chart, lines in points(rows).items():
        text = "".join(f"{epoch}\t{curve}\t{value!r}\n" for epoch, curve, value in lines)
        write_bytes(folder / FOLDER / f"{chart}.tsv", f"epoch\tcurve\tvalue\n{text}".encode())
