"""The command line: `roiseg predict`, `evaluate`, `export`, `export-filter`, `compare`, `preset`, `params`, `cache`, and more."""

import json
import shlex
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from roiseg.cli_serve import serve
from roiseg.cli_snap import SNAPPER_FOLDER, snap, snap_effect
from roiseg.console import OUTPUT, speaking, tell
from roiseg.errors import RoisegError
from roiseg.onnx_names import OWN_FILTER
from roiseg.params import PARAMS_FILE, get_dotted, preset_names, preset_path, read_yaml
from roiseg.preset import apply_preset, as_args, what_it_is, what_it_sets
from roiseg.types import Provider

# The heavy modules are imported by the commands that need them, so that `--help` is instant.

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Train light segmentation heads on cached detector features.")
preset = typer.Typer(no_args_is_help=True, help="Named differences from params.yaml.")
params = typer.Typer(no_args_is_help=True, help="The params file.")
cache = typer.Typer(no_args_is_help=True, help="Feature stores.")
train = typer.Typer(no_args_is_help=True, help="Trained heads.")
app.add_typer(preset, name="preset")
app.add_typer(params, name="params")
app.add_typer(cache, name="cache")
app.add_typer(train, name="train")
app.command()(serve)
app.command()(snap)
app.command("snap-effect")(snap_effect)

MODEL_FOLDER = Path("models/onnx/default")


BOXES_HELP = (
    "`detector`: everybody it finds, where the export has its boxes; 'a,b,c,d;...' for one image or every frame of one video; "
    "a CSV with file_name, x0, y0, x1, y1 (or cx, cy, w, h), optionally score, and frame for videos; a JSON of COCO annotations or "
    "results, whose boxes are always pixels."
)

FILTER_HELP = "`export`: the one that the head was exported with, if any; `none`; or what `roiseg export-filter` wrote."


@app.command()
def predict(  # noqa: PLR0913 - one for each option
    inputs: Annotated[list[str], typer.Argument(help="Images, videos, patterns, and folders with all folders below.")],
    boxes: Annotated[str, typer.Option(help=BOXES_HELP)] = "detector",
    model: Annotated[Path, typer.Option(help="Folder that `export` wrote, or a head in it: head.int8.onnx.")] = MODEL_FOLDER,
    out: Annotated[Path, typer.Option(help="Folder; files of the same names are replaced.")] = Path("predictions"),
    box_format: Annotated[Literal["xyxy", "cxcywh"] | None, typer.Option("--format", help="Of typed boxes, CSV; xyxy.")] = None,
    frame: Annotated[Literal["pixels", "unit"] | None, typer.Option(help="What they count: pixels, shares of the sides.")] = None,
    provider: Annotated[Provider, typer.Option(help="Where the models run.")] = "auto",
    filter_file: Annotated[str, typer.Option("--filter", help=FILTER_HELP)] = OWN_FILTER,
    batch: Annotated[int, typer.Option(min=1, help="Images that go through the backbone together, where it takes several.")] = 1,
    overlays: Annotated[Literal["jpg", "png", "none"], typer.Option(help="Pictures of the masks; videos: any but none.")] = "jpg",
    masks: Annotated[bool, typer.Option("--masks/--no-masks", help="Whether each mask becomes a PNG.")] = True,
    segmentation: Annotated[Literal["rle", "polygons", "both"], typer.Option(help="predictions.json, polygons.json.")] = "both",
    tolerance: Annotated[float, typer.Option(min=0, help="Pixels that a polygon may leave the mask; 0: exact.")] = 1.0,
    min_area: Annotated[float, typer.Option(min=0, help="Pixels; polygons leave out smaller pieces, fill smaller holes.")] = 16.0,
    snapped: Annotated[bool, typer.Option("--snap", help="Boxes are snapped to what they are around first.")] = False,
    snapper: Annotated[Path, typer.Option(help="With --snap: folder that `snapper_export` wrote.")] = SNAPPER_FOLDER,
) -> None:
    """Masks of people as PNGs, COCO results and polygons, overlays; status 1 if an image fails, but the rest is done."""
    with speaking():
        from roiseg.predict import Predictor
        from roiseg.predict.boxes import choose_boxes
        from roiseg.predict.outputs import MASKS, OVERLAYS, Wanted
        from roiseg.predict.run import Run
        from roiseg.predict.snapping import snapper_for
        from roiseg.predict.sources import find_sources

        sources, table = find_sources(inputs, [out / OVERLAYS, out / MASKS]), choose_boxes(boxes, box_format, frame)
        kinds = segmentation in ("rle", "both"), segmentation in ("polygons", "both")
        wanted = Wanted(None if overlays == "none" else overlays, masks, *kinds, tolerance, min_area)
        predictor = Predictor(model, provider, filter_file=None if filter_file == "none" else filter_file)
        summary = Run(predictor, table, batch, wanted, out, snapper_for(predictor, snapper, provider) if snapped else None)(sources)
        OUTPUT.print(f"{summary}{f': {out}' if summary.pictures else ''}", highlight=False)
        if summary.faults:
            sys.exit(1)


@app.command()
def evaluate(
    checkpoints: Annotated[list[Path], typer.Argument(help="Checkpoint files, or folders of heads: their best_model.pth.")],
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="A change to the checkpoints' params, spelled as for `dvc exp run -S`.")
    ] = None,
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Where the heads run.")] = "auto",
    split: Annotated[Literal["train", "val"], typer.Option(help="What they are evaluated on.")] = "val",
    images: Annotated[str, typer.Option(help="How many of its images, spread evenly; `fixed`: those drawn each epoch.")] = "all",
    out: Annotated[Path, typer.Option(help="Folder for a folder of each checkpoint.")] = Path("validation_results"),
    pictures: Annotated[bool, typer.Option("--pictures/--no-pictures", help="Whether images and ROIs are drawn.")] = True,
) -> None:
    """Figures, losses and reports of any checkpoints, each with its own params; status 1 if one of them fails."""
    with speaking():
        from roiseg.evaluate.checkpoints import Asked, Failed, choose_device, evaluate_checkpoints, table
        from roiseg.evaluate.chosen import parse_images
        from roiseg.preset import parse_overrides

        asked = Asked(
            values=read_yaml(PARAMS_FILE),
            overrides=parse_overrides(changes or []),
            split=split,
            images=parse_images(images),
            device=choose_device(device),
            out=out,
            pictures=pictures,
        )
        done, failed = [], []
        for result in evaluate_checkpoints(checkpoints, asked):
            if isinstance(result, Failed):
                failed.append(result)
                continue
            done.append(result)
            for line in result.lines():
                OUTPUT.print(line, markup=False, highlight=False)
        if len(done) > 1:
            for line in ["", *table(done)]:
                OUTPUT.print(line, markup=False, highlight=False)
        for result in failed:
            tell(result.error)
        if failed:
            sys.exit(1)


@app.command()
def export(
    head: Annotated[str | None, typer.Option(help="Head of params.yaml, with fresh weights; `default` without it.")] = None,
    checkpoint: Annotated[Path | None, typer.Option(help="File, or folder of a head: its weights and params instead.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for head.onnx, backbone.onnx and head.json.")] = Path("exported"),
) -> None:
    """ONNX files to try a deployment with, before anything is extracted or trained, or of any checkpoint; needs a cut detector."""
    with speaking():
        from roiseg.export.untrained import deploy

        for line in deploy(head, checkpoint, out).lines():
            OUTPUT.print(line, markup=False, highlight=False)


@app.command()
def score(
    results: Annotated[list[Path], typer.Argument(help="COCO results: image_id, category_id, segmentation, score.")],
    split: Annotated[Literal["train", "val"], typer.Option(help="Whose annotations they are of.")] = "val",
    boundary_ap: Annotated[bool, typer.Option("--boundary-ap", help="Boundary AP too (the extra `boundary`).")] = False,
) -> None:
    """Mask AP of COCO results that any program wrote, by the protocol of `evaluate`; status 1 if a file can't be scored."""
    with speaking():
        from roiseg.coco import DataParams, load_prepared
        from roiseg.evaluate.chosen import SplitFiles
        from roiseg.evaluate.coco_truth import Truth
        from roiseg.evaluate.scored import score_results
        from roiseg.extractor.params import ExtractorParams
        from roiseg.index import Index
        from roiseg.params import load_section

        values = read_yaml(PARAMS_FILE)
        extractor = load_section(ExtractorParams, "extractor", values)
        files = SplitFiles.of(split, load_section(DataParams, "data", values))
        truth, index = Truth(load_prepared(files.annotations)), Index(files.index, extractor.input_hw, extractor.resize)
        failed = False
        for file in results:
            try:
                OUTPUT.print(score_results(file, truth, index, boundary=boundary_ap).line(), markup=False, highlight=False)
            except RoisegError as error:
                failed = True
                tell(error)
        if failed:
            sys.exit(1)


class Strength(StrEnum):
    """How much a filter does."""

    light = "light"
    balanced = "balanced"
    strong = "strong"


class FilterKind(StrEnum):
    """What a filter does."""

    fast = "fast"
    edge_preserving = "edge_preserving"
    binary_mask = "binary_mask"
    morphological = "morphological"


@app.command("export-filter")
def export_filter(  # noqa: PLR0913 - an option each
    kind: FilterKind,
    output: Annotated[Path, typer.Option(help="ONNX file to write.")],
    channels: Annotated[int, typer.Option(min=1, help="Of the maps; each is filtered by itself.")] = 1,
    preset: Annotated[
        Strength | None, typer.Option(help="Kernel, sigma and iterations in one; options below go before it.")
    ] = None,
    kernel_size: Annotated[int | None, typer.Option(help="Side of the Gaussian in pixels, odd.")] = None,
    sigma_spatial: Annotated[float | None, typer.Option(help="Its sigma in pixels.")] = None,
    sigma_range: Annotated[float | None, typer.Option(help="Differences that still count as noise (fast).")] = None,
    iterations: Annotated[int | None, typer.Option(help="How often the map is smoothed (fast, binary_mask).")] = None,
    radius: Annotated[int | None, typer.Option(help="Of the window in pixels (edge_preserving).")] = None,
    epsilon: Annotated[float | None, typer.Option(help="Variance below which it smooths (edge_preserving).")] = None,
    threshold: Annotated[float | None, typer.Option(help="Above it is mask (binary_mask, morphological).")] = None,
    morph_size: Annotated[int | None, typer.Option(help="Side of opening and closing, odd (morphological).")] = None,
    opset: Annotated[int, typer.Option(min=18, max=22, help="ONNX operator set.")] = 18,
) -> None:
    """A mask filter as an ONNX file of its own, for maps (N, C, H, W) of any size."""
    given = {
        "preset": preset and preset.value,
        "kernel_size": kernel_size,
        "sigma_spatial": sigma_spatial,
        "sigma_range": sigma_range,
        "iterations": iterations,
        "radius": radius,
        "epsilon": epsilon,
        "threshold": threshold,
        "morph_size": morph_size,
    }
    with speaking():
        from roiseg.export import filter_onnx
        from roiseg.filters import FilterParams, reach_px

        params = FilterParams.parse(
            {"kind": kind.value, **{key: value for key, value in given.items() if value is not None}}, "export-filter"
        )
        worst = filter_onnx.export_filter(params, channels=channels, opset=opset, path=output)
        values = ", ".join(f"{key} {value}" for key, value in params.chosen().items())
        OUTPUT.print(
            f"{output}: {kind.value}, {values}; looks {reach_px(params)} px far; differs from torch by {worst:.1g}", highlight=False
        )


@preset.command("list")
def preset_list() -> None:
    """All presets: the name and what it is, and below what it sets in each section."""
    with speaking():
        for name in preset_names():
            OUTPUT.print(f"{name}: {what_it_is(name)}", markup=False, highlight=False)
            for section, keys in what_it_sets(name).items():
                OUTPUT.print(f"  {section:9} {keys}", markup=False, highlight=False)


@preset.command("show")
def preset_show(name: str) -> None:
    """What a preset changes."""
    with speaking():
        OUTPUT.print(preset_path(name).read_text(encoding="utf-8"), end="", markup=False, highlight=False)


@preset.command("apply")
def preset_apply(
    name: str,
    spell: Annotated[bool, typer.Option("--as-args", help="Print the -S form for `dvc exp run` instead.")] = False,
    file: Annotated[Path, typer.Option(help="Params file.")] = PARAMS_FILE,
) -> None:
    """Write a preset into params.yaml; comments stay."""
    with speaking():
        if spell:
            OUTPUT.print(shlex.join(as_args(name, file)), markup=False, highlight=False)
            return
        for key in apply_preset(name, file):
            OUTPUT.print(key, markup=False, highlight=False)


@params.command("check")
def params_check(file: Annotated[Path, typer.Argument(help="Params file.")] = PARAMS_FILE) -> None:
    """Check every section and every head's preset; all faults at once."""
    with speaking():
        from roiseg.schema import check_params

        check_params(read_yaml(file))
        OUTPUT.print(f"{file}: no fault", highlight=False)


@app.command()
def compare(
    runs: Annotated[
        list[str],
        typer.Argument(metavar="RUN...", help="'workspace', a revision, an experiment, a metrics JSON or a folder of such."),
    ],
    head: Annotated[list[str] | None, typer.Option(help="Head to compare; all that a run's params list without it.")] = None,
    base: Annotated[str | None, typer.Option(help="Run that the others are compared with; the first without it.")] = None,
    metric: Annotated[list[str] | None, typer.Option(help="Metric to compare; the leading ones without it.")] = None,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown for a pull request.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
    chart: Annotated[Path | None, typer.Option(help="PNG to write: bars with 95 % intervals.")] = None,
    pull: Annotated[bool, typer.Option("--pull", help="Fetch what isn't in DVC's cache from its remote.")] = False,
) -> None:
    """What runs score, how surely they differ and where, which params differ, what features are worth."""
    if as_markdown and as_json:
        raise typer.BadParameter("--markdown and --json are both given, expected at most one of them")
    if chart is not None and chart.suffix != ".png":
        raise typer.BadParameter(f"--chart {chart}: a file of type {chart.suffix or 'none'}, expected .png")
    with speaking():
        from roiseg.compare.comparison import compare as compare_runs
        from roiseg.compare.runs import find_runs

        comparison = compare_runs(find_runs(runs, head or []), base, metric or [], pull=pull)
        if chart is not None:
            from roiseg.compare.chart import draw

            draw(comparison, chart)
        if as_markdown:
            from roiseg.compare.markdown import markdown

            typer.echo(markdown(comparison), nl=False)
        elif as_json:
            from roiseg.compare.document import document

            typer.echo(json.dumps(document(comparison), indent=2, allow_nan=False))
        else:
            from roiseg.compare.terminal import show

            show(comparison, Console(highlight=False))


@app.command()
def doctor() -> None:
    """What this machine has, what the params ask for, and whether the two fit; status 1 if they don't."""
    with speaking():
        from roiseg.doctor import examine

        findings = list(examine())
        for finding in findings:
            OUTPUT.print(f"{finding.state:5}{finding.what:10} {finding.text}", markup=False, highlight=False)
        if any(finding.state == "bad" for finding in findings):
            sys.exit(1)


@train.command("keep")
def train_keep(
    name: Annotated[str, typer.Argument(help="Name of the copy: models/kept/NAME.")],
    head: Annotated[list[str] | None, typer.Option(help="Head to keep; all of `heads` without it.")] = None,
) -> None:
    """Keep what a run has learnt, tracked by DVC, for `train.resume_from` of a later run."""
    with speaking():
        from roiseg.train.keep import keep
        from roiseg.trained import HEADS

        heads = head or [str(item) for item in get_dotted(read_yaml(PARAMS_FILE), "heads")]
        folder = keep(name, heads, HEADS)
        OUTPUT.print(
            f"{folder}: {', '.join(heads)}; to go on from it: train.resume_from: {folder}, and more train.epochs; "
            f"git add {folder}.dvc {folder.parent}/.gitignore",
            highlight=False,
        )


Split = Annotated[str, typer.Argument(help="train or val.")]


@cache.command("info")
def cache_info(split: Split = "train") -> None:
    """What a store holds, and what made it."""
    with speaking():
        from roiseg.verify import describe

        for line in describe(split):
            OUTPUT.print(line, markup=False, highlight=False)


@cache.command("verify")
def cache_verify(
    split: Split = "train",
    images: Annotated[int, typer.Option(min=0, help="How many images are computed anew; needs the images.")] = 8,
    seed: Annotated[int, typer.Option(help="Which ones.")] = 0,
) -> None:
    """Compare every byte with its sum, and some images with features computed now."""
    with speaking():
        from roiseg.verify import verify

        for line in verify(split, images, seed):
            OUTPUT.print(line, markup=False, highlight=False)


@cache.command("bench")
def cache_bench(
    split: Split = "train",
    layer: Annotated[str | None, typer.Option(help="One layer; all of them without it.")] = None,
    images: Annotated[int, typer.Option(min=1, help="How many are read; 1,024 x 80 x 80 takes 13 MB of disk for each.")] = 64,
) -> None:
    """How fast this store is read on this machine, beside zarr-python and a copy of raw float16."""
    with speaking():
        from roiseg.cache.race import race_store
        from roiseg.trained import FEATURES

        for line in race_store(FEATURES / f"{split}.zarr", layer, images):
            OUTPUT.print(line, markup=False, highlight=False)


if __name__ == "__main__":
    app()
