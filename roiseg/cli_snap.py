"""`roiseg snap` and `roiseg snap-effect`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from roiseg.console import OUTPUT, speaking
from roiseg.errors import BoxError
from roiseg.types import Provider

if TYPE_CHECKING:
    from roiseg.snap import Snapper

SNAPPER_FOLDER = Path("models/onnx/snapper")

Model = Annotated[Path, typer.Option(help="Folder that `snapper_export` wrote, or a file in it: snapper.fp16.onnx.")]
Boxes = Annotated[list[str] | None, typer.Option("--box", help="'left,top,width,height' in pixels; again for each box.")]
KeepBelow = Annotated[float | None, typer.Option(min=0, max=1, help="Edges less sure stay; as exported without it.")]
ReviewBelow = Annotated[float | None, typer.Option(min=0, max=1, help="Edges less sure are marked; as exported without it.")]


def snap(  # noqa: PLR0913 - one for each option
    image: Annotated[Path | None, typer.Argument(help="Image whose boxes are snapped.")] = None,
    boxes: Boxes = None,
    coco: Annotated[Path | None, typer.Option(help="COCO annotations to clean instead, all categories; only read.")] = None,
    images: Annotated[Path | None, typer.Option(help="With --coco: folder that file_name begins at.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for picture and JSON (snapped); with --coco: the cleaned file.")] = None,
    model: Model = SNAPPER_FOLDER,
    provider: Annotated[Provider, typer.Option(help="Where the models run.")] = "auto",
    keep_below: KeepBelow = None,
    review_below: ReviewBelow = None,
) -> None:
    """Rough boxes snapped to what they are around: of an image, or of a whole file of annotations; status 1 for what can't be."""
    with speaking():
        if (image is None) == (coco is None):
            raise BoxError("snap: expected either an image with --box, or --coco with --images and --out; see `roiseg snap --help`")
        if coco is not None:
            if boxes or images is None or out is None:
                raise BoxError("snap --coco: expected --images FOLDER and --out FILE, and no --box, since boxes come from the file")
            _clean(_open(model, provider, keep_below, review_below), coco, images, out)
        elif image is not None:
            if not boxes or images is not None:
                raise BoxError(f"snap {image}: expected --box left,top,width,height at least once, and no --images; add a box")
            from roiseg.snap.picture import parse_boxes, snap_picture

            parsed = parse_boxes(boxes)
            found = snap_picture(_open(model, provider, keep_below, review_below), image, parsed, out or Path("snapped"))
            for line in found.lines():
                OUTPUT.print(line, markup=False, highlight=False)


def _open(model: Path, provider: Provider, keep_below: float | None, review_below: float | None) -> "Snapper":
    """A Snapper with thresholds as asked."""
    from roiseg.snap import Policy, Snapper

    snapper = Snapper(model, provider)
    keep = snapper.policy.keep_below if keep_below is None else keep_below
    snapper.policy = Policy(keep, snapper.policy.review_below if review_below is None else review_below)
    return snapper


def _clean(snapper: "Snapper", coco: Path, images: Path, out: Path) -> None:
    from roiseg.snap.coco import CleanPaths, clean

    paths = CleanPaths(coco, images, out)
    cleaned = clean(snapper, paths)
    for line in [*cleaned.lines(), f"{paths.out}, {paths.review}"]:
        OUTPUT.print(line, markup=False, highlight=False)
    if cleaned.faults:
        sys.exit(1)


def snap_effect(
    head: Annotated[str, typer.Option(help="Which of the trained heads.")] = "default",
    model: Model = SNAPPER_FOLDER,
    provider: Annotated[Provider, typer.Option(help="Where the Snapper runs.")] = "auto",
    out: Annotated[Path, typer.Option(help="JSON of the figures.")] = Path("snap_effect.json"),
) -> None:
    """What snapping changes for a head on the validation split: mask AP with rough, snapped and annotated boxes side by side."""
    with speaking():
        from roiseg.snap_effect import snap_effect as measured

        for line in measured(head, model, provider, out).lines():
            OUTPUT.print(line, markup=False, highlight=False)
