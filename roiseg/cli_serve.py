"""`roiseg serve`: the Snapper as an HTTP service."""

import importlib.util
from pathlib import Path
from typing import Annotated

import typer

from roiseg.console import OUTPUT, speaking
from roiseg.errors import PackageError
from roiseg.types import Provider

NEEDED = ("fastapi", "uvicorn", "python_multipart")
MIB = 1 << 20

MOST_MEGAPIXELS = 178.0
"""Pillow, which reads the sizes, refuses larger images whatever the limit."""


def serve(  # noqa: PLR0913 - an option each
    model: Annotated[Path, typer.Option(help="Folder that `snapper_export` wrote.")] = Path("models/onnx/snapper"),
    host: Annotated[
        str, typer.Option(help="Address to listen on. There is no log-in: leave it, or put a proxy before it.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0: any that is free.")] = 8000,
    images: Annotated[Path | None, typer.Option(help="Folder whose images requests may name; nothing else is opened.")] = None,
    provider: Annotated[Provider, typer.Option(help="Where the models run.")] = "auto",
    max_body: Annotated[float, typer.Option(min=0.001, help="MiB of one request, and of one image file.")] = 16.0,
    max_held: Annotated[float, typer.Option(min=0.001, help="MiB of all requests that are read, wait or are worked on.")] = 256.0,
    max_megapixels: Annotated[
        float, typer.Option(min=0.001, max=MOST_MEGAPIXELS, help="Of one image, known before it is decoded.")
    ] = 50.0,
    max_boxes: Annotated[int, typer.Option(min=1, help="Boxes of one request.")] = 256,
    max_queue: Annotated[int, typer.Option(min=1, help="Requests that wait or are worked on; more get 429.")] = 256,
    max_connections: Annotated[int, typer.Option(min=1, help="Open at once; more get 503.")] = 512,
    keep_results: Annotated[int, typer.Option(min=1, help="Finished jobs that can be asked for; the oldest go first.")] = 1024,
    keep_seconds: Annotated[float, typer.Option(min=1, help="How long each of them can.")] = 600.0,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds to read a request, and then to answer it.")] = 30.0,
) -> None:
    """Snap boxes by HTTP: find-and-snap calls under /v1/snap, and an ML backend that Label Studio can be connected to."""
    with speaking():
        check_installed()
        import numpy as np

        from roiseg.snap import Snapper
        from roiseg.snap.limits import Limits
        from roiseg.snap.pictures import ImageFolder
        from roiseg.snap.service import create_app, make_server

        limits = Limits(
            body_bytes=round(max_body * MIB),
            held_bytes=round(max_held * MIB),
            pixels=round(max_megapixels * 1e6),
            boxes=max_boxes,
            queue=max_queue,
            results=keep_results,
            result_s=keep_seconds,
            timeout_s=timeout,
            connections=max_connections,
        )
        folder = None if images is None else ImageFolder(images)
        snapper = Snapper(model, provider)
        # The backbone is opened with the first image: a fault of it should end this command, and not every request.
        snapper.encode([np.zeros((32, 32, 3), dtype=np.uint8)])
        app = create_app(snapper, folder, limits)
        OUTPUT.print(f"{model} on http://{host}:{port}; end it with Ctrl-C", markup=False, highlight=False)
        make_server(app, host, port, limits).run()


def check_installed() -> None:
    """See that the packages of the extra `serve` are there.

    Raises:
        PackageError: one isn't.
    """
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise PackageError(
            f"roiseg serve needs {', '.join(missing)}, which isn't installed; run `uv sync --extra serve` (or `pip install "
            "fastapi uvicorn python-multipart`)"
        )
