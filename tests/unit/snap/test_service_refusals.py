"""Tests of roiseg.snap.asked, bodies and pictures: whatever comes, the answer is a clear 4xx and the service goes on."""

import os
import socket
import struct
import zlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from snap_service_factory import LIMITS, Running, base64_text, encoded_image, form_body, running, snap_body

WRITTEN = "what nobody is shown"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to serve, beside a picture that isn't served."""
    root = tmp_path_factory.mktemp("place")
    (root / "served" / "inner").mkdir(parents=True)
    (root / "secret.png").write_bytes(encoded_image(200))
    (root / "served" / "fine.png").write_bytes(encoded_image())
    (root / "served" / "link.png").symlink_to(root / "secret.png")
    (root / "served" / "own.png").symlink_to("fine.png")
    (root / "served" / "out").symlink_to(root)
    (root / "served" / "note.txt").write_text(WRITTEN)
    (root / "served" / "long.png").write_bytes(encoded_image() + bytes(LIMITS.body_bytes))
    os.mkfifo(root / "served" / "pipe.png")
    return root


@pytest.fixture(scope="module")
def service(place: Path) -> Iterator[Running]:
    with running(place / "served") as found:
        yield found


@pytest.fixture(autouse=True)
def still_well(service: Running) -> Iterator[None]:
    yield
    assert service.snap(snap_body(path="fine.png")).status == 200
    assert service.service.budget.held == 0
    assert service.service.jobs.unfinished == 0


def png(width: int, height: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG whose header says this size, and whatever else."""
    data = b"\x89PNG\r\n\x1a\n"
    for kind, content in ((b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), *chunks, (b"IEND", b"")):
        data += struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    return data


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        (b"", 400, "json: body: Invalid JSON"),
        (b"{", 400, "json: body: Invalid JSON"),
        (b"\xff\xfe", 400, "json: body: Invalid JSON"),
        (b'{"boxes": [[1,2,3,NaN]]}', 422, "boxes.0.3"),
        (b'{"boxes": [[1,2,3,1e999]]}', 422, "boxes.0.3"),
        (b'{"boxes": [[1,2,3,' + b"9" * 5000 + b"]]}", 400, "json: body: Invalid JSON: number out of range"),
        (b"[" * 100_000, 400, "json: body: Invalid JSON: recursion limit exceeded"),
        (b'{"a":' * 50_000, 400, "json: body: Invalid JSON: recursion limit exceeded"),
        (b"[" + b"0," * 200_000 + b"0]", 413, "too_large: the JSON has more than 100000 values"),
        (b"[]", 422, "Input should be an object"),
        (b"{}", 422, "boxes: Field required"),
        (b'{"boxes": []}', 422, "boxes: List should have at least 1 item"),
        (b'{"boxes": [[1,2,3]]}', 422, "boxes.0.3: Field required"),
        (b'{"boxes": [["1",2,3,4]]}', 422, "boxes.0.0: Input should be a valid number"),
        (b'{"boxes": [[1,2,3,4]], "buffers": 2}', 422, "buffers: Extra inputs are not permitted"),
        (b'{"boxes": [[1,2,3,4]], "path": "fine.png", "buffer": 0.5}', 422, "buffer: Input should be greater than or equal to 1"),
        (b'{"boxes": [[1,2,3,4]], "path": "fine.png", "buffer": 5}', 422, "buffer: Input should be less than or equal to 4"),
        (b'{"boxes": [[1,2,3,4]]}', 422, "neither image and path given, expected one of them"),
        (b'{"boxes": [[1,2,3,4]], "path": "fine.png", "image": ""}', 422, "both image and path given, expected one of them"),
        (b'{"boxes": [[1,2,3,4]], "image": "\\u00e4"}', 422, "base64: image: no base64"),
        (b'{"boxes": [[1,2,3,4]], "image": "abc"}', 422, "base64: image: no base64"),
        (b'{"boxes": [[1,2,3,4]], "image": ""}', 422, "image: image: no image that can be read, expected JPEG, PNG, WEBP, BMP"),
        (b'{"boxes": [[1,2,3,4]], "path": "\\ud800"}', 400, "json: body: Invalid JSON"),
    ],
)
def test_malformed_json_is_named(service: Running, body: bytes, status: int, text: str) -> None:
    answer = service.snap(body)
    assert answer.status == status, answer.json
    assert text in answer.error
    assert len(answer.error) < 1000


@pytest.mark.parametrize(
    ("box", "text"),
    [
        ([10, 10, 0, 5], "box 0 is (10, 10, 0, 5), expected left, top, width > 0, height > 0"),
        ([10, 10, 5, -5], "box 0 is (10, 10, 5, -5), expected left, top, width > 0, height > 0"),
        ([80, 0, 5, 5], "lies outside the image of 80x60 pixels"),
        ([-10, 0, 5, 5], "lies outside the image of 80x60 pixels"),
        ([1e308, 0, 1e308, 5], "expected finite numbers"),
        ([1e30, 0, 1e-30, 5], "expected x0 < x1"),
    ],
)
def test_box_that_cannot_be_snapped_is_named(service: Running, box: list[float], text: str) -> None:
    answer = service.snap(snap_body([box]))
    assert answer.status == 422
    assert text in answer.error


def test_too_many_boxes(service: Running) -> None:
    answer = service.snap(snap_body([[1, 1, 5, 5]] * 9))
    assert (answer.status, answer.error) == (413, "too_many_boxes: boxes: 9, expected at most 8; ask in parts")


@pytest.mark.parametrize(
    "path",
    [
        "../secret.png",
        "inner/../../secret.png",
        "inner/../fine.png",
        "..",
        ".",
        "",
        "/",
        "./fine.png",
        "inner//x.png",
        "fine.png/",
        "..\\secret.png",
        "inner\\..\\..\\secret.png",
        "C:\\secret.png",
        "%2e%2e/secret.png",
        "..%2fsecret.png",
        "%2e%2e%2fsecret.png",
        "..%252fsecret.png",
        "..%c0%afsecret.png",
        "．．/secret.png",
        "fine.png\0",
        "\0../secret.png",
        "fine.png\n",
        "link.png",
        "own.png",
        "out/secret.png",
        "out/served/fine.png",
        "file:///etc/passwd",
        "file://fine.png",
        "~/secret.png",
        "inner",
        "pipe.png",
        "absent.png",
        "fine.png/x",
        "a" * 300,
        "/".join(["a"] * 4000),
    ],
)
@pytest.mark.parametrize("form", [False, True], ids=["json", "form"])
def test_nothing_but_plain_files_of_the_folder_is_opened(service: Running, path: str, form: bool) -> None:
    if form:
        body, kind = form_body(("path", None, path.encode()), ("boxes", None, b"[[1, 1, 5, 5]]"))
        answer = service.snap(body, {"Content-Type": kind})
    else:
        answer = service.snap(snap_body(path=path))
    assert answer.status in (400, 403, 404), answer.json
    assert len(answer.error) < 700


@pytest.mark.parametrize("spelling", ["absolute", "above"])
def test_absolute_paths_are_refused(service: Running, place: Path, spelling: str) -> None:
    path = place / "served" / "fine.png"
    answer = service.snap(snap_body(path=str(path) if spelling == "absolute" else f"/{path}"))
    assert answer.status == 400
    assert "expected a path inside of the served folder" in answer.error


def test_file_that_is_no_image_is_not_shown(service: Running) -> None:
    answer = service.snap(snap_body(path="note.txt"))
    assert answer.status == 422
    assert "no image that can be read" in answer.error
    assert WRITTEN not in answer.error


def test_file_of_the_folder_has_the_limit_of_bodies(service: Running) -> None:
    answer = service.snap(snap_body(path="long.png"))
    assert (answer.status, answer.json["error"]["code"]) == (413, "too_large")


@pytest.mark.parametrize(
    ("data", "status", "text"),
    [
        (png(60_000, 60_000), 413, "too_many_pixels: image: far more, expected at most 1000000 pixels"),
        (png(10_000, 10_000), 413, "too_many_pixels: image: far more, expected at most 1000000 pixels"),
        (png(2_000, 501), 413, "too_many_pixels: image: 2000x501 pixels, expected at most 1000000 pixels"),
        (png(80, 60), 422, "image: image: 45 bytes that are no image OpenCV can read"),
        (png(80, 60, (b"zTXt", b"a\0\0" + zlib.compress(bytes(20_000_000)))), 422, "image: image: "),
        (png(80, 60, (b"IHDR", struct.pack(">IIBBBBB", 900, 900, 8, 2, 0, 0, 0))), 422, "image: image: "),
        (encoded_image(ending=".jpg")[:-40], 422, "image: image: the image is truncated"),
        (encoded_image()[:-40], 422, "image: image: the image is truncated"),
        (encoded_image()[:20], 422, "image: image: no image that can be read"),
        (encoded_image(ending=".tiff"), 422, "image: image: no image that can be read, expected JPEG, PNG, WEBP, BMP"),
        (b"GIF89a" + struct.pack("<HH", 65535, 65535) + bytes(10), 422, "image: image: no image that can be read"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", 422, "image: image: no image that can be read"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 422, "image: image: no image that can be read"),
        (b"\xff\xd8" + b"\xff\xe1\x00\x02" * 1000, 422, "image: image: no image that can be read"),
    ],
    ids=range(14),
)
def test_images_that_cannot_be_used_are_refused_before_they_are_decoded(
    service: Running, data: bytes, status: int, text: str
) -> None:
    answer = service.snap(snap_body(image=base64_text(data)))
    assert answer.status == status, answer.json
    assert answer.error.startswith(text)


@pytest.mark.parametrize(
    ("headers", "text"),
    [
        ({"Content-Type": ""}, "Content-Type is '', expected application/json or multipart/form-data"),
        ({"Content-Type": "text/plain"}, "Content-Type is 'text/plain'"),
        ({"Content-Type": "application/x-www-form-urlencoded"}, "Content-Type is 'application/x-www-form-urlencoded'"),
        ({"Content-Type": "image/png"}, "Content-Type is 'image/png'"),
        ({"Content-Type": "application/json; charset=utf-8", "Content-Encoding": "gzip"}, "Content-Encoding is 'gzip'"),
    ],
)
def test_other_content_types_are_refused(service: Running, headers: dict[str, str], text: str) -> None:
    answer = service.snap(snap_body(), headers)
    assert answer.status == 415
    assert text in answer.error


@pytest.mark.parametrize(
    ("parts", "status", "text"),
    [
        ([("image", "a.png", encoded_image())], 422, "form field 'boxes' is missing"),
        ([("boxes", None, b"[[1, 1, 5, 5]]")], 422, "neither image and path given"),
        ([("boxes", None, b"1,1,5,5"), ("image", "a.png", encoded_image())], 400, "form field 'boxes': Invalid JSON"),
        ([("boxes", None, b"[[1]]"), ("image", "a.png", encoded_image())], 422, "form field 'boxes': 0.1: Field required"),
        (
            [("boxes", None, b"[[1, 1, 5, 5]]"), ("buffer", None, b"x"), ("image", "a", b"")],
            400,
            "form field 'buffer': Invalid JSON",
        ),
        ([("boxes", "a.json", b"[[1, 1, 5, 5]]")], 422, "form field 'boxes': unexpected"),
        ([("image", None, b"text")], 422, "form field 'image': unexpected"),
        ([("boxes", None, b"[]"), ("boxes", None, b"[]")], 422, "form field 'boxes': unexpected, twice"),
        ([("other", None, b"1")], 422, "form field 'other': unexpected"),
        ([("image", "a.png", b""), ("image", "b.png", b"")], 400, "Too many files"),
        ([("boxes", None, b"1")] * 5, 400, "Too many fields"),
    ],
    ids=range(11),
)
def test_forms_of_other_parts_are_refused(
    service: Running, parts: list[tuple[str, str | None, bytes]], status: int, text: str
) -> None:
    body, kind = form_body(*parts)
    answer = service.snap(body, {"Content-Type": kind})
    assert answer.status == status, answer.json
    assert text in answer.error


@pytest.mark.parametrize("kind", ["multipart/form-data", "multipart/form-data; boundary=other", "multipart/form-data; boundary="])
def test_form_without_its_boundary_is_refused(service: Running, kind: str) -> None:
    body, _ = form_body(("boxes", None, b"[[1, 1, 5, 5]]"))
    assert service.snap(body, {"Content-Type": kind}).status in (400, 422)


def parts_of(count: int) -> Iterator[bytes]:
    yield b'--B0UNDARY\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
    for _ in range(count):
        yield bytes(1 << 16)


@pytest.mark.parametrize("kind", ["application/json", "multipart/form-data; boundary=B0UNDARY"])
@pytest.mark.parametrize("sent", ["chunked", "chunked without end", "stated", "stated and not sent"])
def test_body_beyond_the_limit_is_cut_off(service: Running, sent: str, kind: str) -> None:
    headers = {"Content-Type": kind}
    count = 17
    if sent.startswith("stated"):
        headers["Content-Length"] = str(len(b"".join(parts_of(count))))
    body: bytes | Iterator[bytes] = parts_of(400 if sent == "chunked without end" else count)
    if sent == "stated and not sent":
        headers["Expect"] = "100-continue"
        body = b""
    if sent == "stated":
        body = b"".join(parts_of(count))
    answer = service.snap(body, headers)
    assert answer.status == 413
    assert answer.error.startswith("too_large: the body has more than 1048576 bytes, expected no more")


@pytest.mark.parametrize("stated", [5, 5000, 10**19, 10**400, -1])
def test_content_length_that_lies(service: Running, stated: int) -> None:
    with closing(socket.create_connection(("127.0.0.1", service.port), timeout=10)) as connection:
        head = f"POST /v1/snap?wait=1 HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {stated}\r\n\r\n"
        connection.sendall(head.encode() + b'{"boxes": [[1, 2, 3, 4]]}')
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        while part := connection.recv(1 << 16):
            answer += part
    assert answer == b"" or answer.split(b" ")[1] in (b"400", b"413")
