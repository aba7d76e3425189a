"""A service that really listens, with a model whose answers can be told in advance."""

import base64
import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import ArrayLike

from roiseg.geometry import Floats, clip_boxes
from roiseg.network_input import Pixels
from roiseg.predict.encoder import Encoded
from roiseg.snap import SnappedBox
from roiseg.snap.limits import Limits
from roiseg.snap.pictures import ImageFolder
from roiseg.snap.service import SnapService, create_app, make_server

Json: TypeAlias = Any

LIMITS = Limits(
    body_bytes=1 << 20,
    held_bytes=64 << 20,
    pixels=1_000_000,
    boxes=8,
    queue=256,
    results=256,
    result_s=60.0,
    timeout_s=20.0,
    connections=512,
)
BUFFER = 1.35
CONFIDENCES = (0.9, 0.4, 0.8, 0.1)


class FakeSnapper:
    """Moves each box by the image's blue level to the right, and grows it by the buffer; the last edge stays."""

    def __init__(self) -> None:
        self.metadata: Mapping[str, Any] = {"kind": "fake", "buffer": BUFFER}
        self.hold = threading.Event()
        self.hold.set()
        self.entered = threading.Event()
        self.fault: Exception | None = None
        self.threads: set[int] = set()
        self.count = 0

    def encode(self, images: Sequence[Pixels]) -> list[Encoded]:
        self.threads.add(threading.get_ident())
        self.count += 1
        self.entered.set()
        assert self.hold.wait(30)
        if self.fault is not None:
            raise self.fault
        return [
            Encoded({"blue": image[:1, :1, 0].astype(np.float32)[None]}, (image.shape[0], image.shape[1]), None) for image in images
        ]

    def snap_encoded(
        self, encoded: Encoded, boxes_image: ArrayLike, what: str = "image", *, buffer: float | None = None
    ) -> list[SnappedBox]:
        found = []
        for given in np.asarray(boxes_image, dtype=np.float64):
            rough = clip_boxes(given[None], encoded.image_hw)[0]
            proposed = snapped(rough, float(encoded.features["blue"].item()), buffer)
            confidences = np.array(CONFIDENCES)
            kept = confidences < 0.2
            found.append(
                SnappedBox(given, rough, proposed, np.where(kept, rough, proposed), confidences, kept, kept | (confidences < 0.5))
            )
        return found


def snapped(rough: Floats, blue: float, buffer: float | None = None) -> Floats:
    """Where the fake sees a box (4,), xyxy; its last edge isn't moved there."""
    return np.asarray(rough + np.array([blue / 100, buffer or BUFFER, blue / 100, 0]))


def encoded_image(blue: int = 0, hw: tuple[int, int] = (60, 80), ending: str = ".png") -> bytes:
    """A picture of one colour."""
    done, data = cv2.imencode(ending, np.full((*hw, 3), (blue, 10, 20), dtype=np.uint8))
    assert done
    return data.tobytes()


def base64_text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def snap_body(boxes: object = ((10, 10, 20, 20),), **values: object) -> dict[str, object]:
    """A JSON body of find-and-snap with a picture, unless `image` or `path` is given."""
    picture = {} if {"image", "path"} & set(values) else {"image": base64_text(encoded_image())}
    return {"boxes": boxes, **picture, **values}


def form_body(*parts: tuple[str, str | None, bytes]) -> tuple[bytes, str]:
    """Name, file name and content of each part -> body and content type."""
    lines = b""
    for name, file_name, content in parts:
        file = "" if file_name is None else f'; filename="{file_name}"'
        lines += f'--B0UNDARY\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'.encode() + content + b"\r\n"
    return lines + b"--B0UNDARY--\r\n", "multipart/form-data; boundary=B0UNDARY"


@dataclass(frozen=True)
class Answer:
    """A response whose body was JSON."""

    status: int
    headers: Mapping[str, str]
    json: Json

    @property
    def error(self) -> str:
        """Code and message of a refusal."""
        assert set(self.json) == {"error"}
        return f"{self.json['error']['code']}: {self.json['error']['message']}"


@dataclass(frozen=True)
class Running:
    """A service that listens."""

    port: int
    snapper: FakeSnapper
    service: SnapService

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)

    def call(self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None) -> Answer:
        """A request; a body that isn't bytes or an iterator of them is sent as JSON."""
        sent = dict(headers or {})
        if body is not None and not isinstance(body, bytes) and not isinstance(body, Iterator):
            body = json.dumps(body).encode()
        if body is not None:
            sent.setdefault("Content-Type", "application/json")
        with closing(self.connect()) as connection:
            # What is refused before all was sent has its answer nevertheless.
            with suppress(BrokenPipeError, ConnectionResetError):
                connection.request(method, path, body, sent, encode_chunked=isinstance(body, Iterator))
            return answer_of(connection.getresponse())

    def snap(self, body: object, headers: Mapping[str, str] | None = None) -> Answer:
        return self.call("POST", "/v1/snap?wait=1", body, headers)


def answer_of(response: http.client.HTTPResponse) -> Answer:
    headers = {name.lower(): value for name, value in response.getheaders()}
    return Answer(response.status, headers, json.loads(response.read()))


@contextmanager
def running(folder: Path | None = None, **limits: float) -> Iterator[Running]:
    """A service on a free port; `limits` in the place of those of `LIMITS`."""
    snapper, chosen = FakeSnapper(), replace(LIMITS, **limits)  # type: ignore[arg-type]  # counts stay counts
    app = create_app(snapper, None if folder is None else ImageFolder(folder), chosen)
    server = make_server(app, "127.0.0.1", 0, chosen)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        until(lambda: server.started)
        yield Running(server.servers[0].sockets[0].getsockname()[1], snapper, app.state.service)
    finally:
        snapper.hold.set()
        server.should_exit = True
        thread.join(30)
    assert not thread.is_alive()


def until(is_so: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait for something."""
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)
