"""Tests of roiseg.snap.service: what is asked is what is answered."""

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from snap_service_factory import BUFFER, Answer, Running, encoded_image, form_body, running, snap_body, snapped, until

from roiseg.errors import BoxError, PredictionError
from roiseg.snapper.windows import EDGES


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pictures")
    (root / "street").mkdir()
    (root / "street" / "0 %41.png").write_bytes(encoded_image(blue=100))
    return root


@pytest.fixture(scope="module")
def service(folder: Path) -> Iterator[Running]:
    with running(folder) as found:
        yield found


def test_boxes_are_snapped_in_pixels_and_edges_are_named(service: Running) -> None:
    answer = service.snap(snap_body([[10, 12, 20, 24], [-5, -5, 200, 30]]))
    assert answer.status == 200
    assert answer.json["status"] == "done"
    result = answer.json["result"]
    assert result["image"] == {"width": 80, "height": 60}
    first, second = result["boxes"]
    assert first["rough"] == [10, 12, 20, 24]
    assert first["box"] == [10, 12 + BUFFER, 20, 24 - BUFFER]
    assert first["confidences"] == {"left": 0.9, "top": 0.4, "right": 0.8, "bottom": 0.1}
    assert first["kept"] == ["bottom"]
    assert first["review"] == ["top", "bottom"]
    assert second["rough"] == [0, 0, 80, 25]
    assert list(first["confidences"]) == list(EDGES)


def test_job_is_told_where_it_is_and_what_became_of_it(service: Running) -> None:
    service.snapper.hold.clear()
    answer = service.call("POST", "/v1/snap", snap_body())
    assert answer.status == 202
    assert answer.headers["location"] == f"/v1/snap/{answer.json['id']}"
    assert answer.json["status"] == "pending"
    pending = service.call("GET", answer.headers["location"])
    assert (pending.status, pending.json["status"], pending.headers["retry-after"]) == (200, "pending", "1")
    service.snapper.hold.set()
    until(lambda: service.call("GET", answer.headers["location"]).json["status"] == "done")
    done = service.call("GET", answer.headers["location"])
    assert done.json["result"]["boxes"][0]["rough"] == [10, 10, 20, 20]
    assert service.call("GET", answer.headers["location"]) == done


@pytest.mark.parametrize("buffer", [None, 1, 2.5])
def test_buffer_of_the_request_goes_before_that_of_the_model(service: Running, buffer: float | None) -> None:
    values = {} if buffer is None else {"buffer": buffer}
    (box,) = service.snap(snap_body([[10, 10, 20, 20]], **values)).json["result"]["boxes"]
    assert box["box"][1] == pytest.approx(10 + (buffer or BUFFER))


def test_form_with_a_file(service: Running) -> None:
    body, kind = form_body(
        ("image", "a.jpg", encoded_image(50, ending=".jpg")), ("boxes", None, b"[[10, 10, 20, 20]]"), ("buffer", None, b"2")
    )
    (box,) = service.snap(body, {"Content-Type": kind}).json["result"]["boxes"]
    assert box["box"] == [10.5, 12, 20, 18]


def test_form_with_a_path(service: Running) -> None:
    body, kind = form_body(("path", None, b"street/0 %41.png"), ("boxes", None, b"[[10, 10, 20, 20]]"))
    (box,) = service.snap(body, {"Content-Type": kind}).json["result"]["boxes"]
    assert box["box"][0] == 11


def test_path_in_the_served_folder_is_taken_as_it_is_spelled(service: Running) -> None:
    (box,) = service.snap(snap_body(path="street/0 %41.png")).json["result"]["boxes"]
    assert box["box"][0] == 11


@pytest.mark.parametrize(
    "pixels",
    [
        np.full((60, 80), 200, dtype=np.uint8),
        np.full((60, 80), 200 * 257, dtype=np.uint16),
        np.full((60, 80, 3), 200 * 257, dtype=np.uint16),
        np.full((60, 80, 4), 200, dtype=np.uint8),
    ],
    ids=["grey", "grey 16 bit", "16 bit", "transparent"],
)
def test_images_of_other_kinds_become_8_bit_colour(service: Running, pixels: np.ndarray) -> None:
    body, kind = form_body(("image", "a.png", cv2.imencode(".png", pixels)[1].tobytes()), ("boxes", None, b"[[10, 10, 20, 20]]"))
    (box,) = service.snap(body, {"Content-Type": kind}).json["result"]["boxes"]
    assert box["box"][0] == 12


def test_200_requests_at_once_get_their_own_answers(service: Running) -> None:
    service.snapper.threads.clear()
    gate = threading.Barrier(200)

    def ask(number: int) -> Answer:
        gate.wait()
        body, kind = form_body(
            ("image", "a.png", encoded_image(number)),
            ("boxes", None, json.dumps([[number / 10, 5, 20, 20], [1, number / 10, 20, 20]]).encode()),
        )
        if number % 2:
            return service.snap(body, {"Content-Type": kind})
        place = service.call("POST", "/v1/snap", body, {"Content-Type": kind}).headers["location"]
        until(lambda: service.call("GET", place).json["status"] != "pending")
        return service.call("GET", place)

    with ThreadPoolExecutor(200) as pool:
        answers = list(pool.map(ask, range(200)))
    for number, answer in enumerate(answers):
        boxes = answer.json["result"]["boxes"]
        for box, (left, top) in zip(boxes, [(number / 10, 5), (1, number / 10)], strict=True):
            x0, y0, x1, _ = snapped(np.array([left, top, left + 20, top + 20]), number)
            assert box["box"] == pytest.approx([x0, y0, x1 - x0, top + 20 - y0], abs=1e-3)
    assert len(service.snapper.threads) == 1
    assert service.service.jobs.unfinished == 0
    assert service.service.budget.held == 0


def test_model_and_health(service: Running) -> None:
    model = service.call("GET", "/v1/model")
    assert (model.status, model.json["metadata"]) == (200, {"kind": "fake", "buffer": BUFFER})
    assert service.call("GET", "/healthz").json == {"status": "ok", "unfinished": 0}


def test_openapi_tells_of_both_bodies(service: Running) -> None:
    content = service.call("GET", "/openapi.json").json["paths"]["/v1/snap"]["post"]["requestBody"]["content"]
    assert set(content) == {"application/json", "multipart/form-data"}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/docs", 404),
        ("GET", "/v1/snap", 405),
        ("GET", "/v1/snap/abc", 404),
        ("GET", "/..%2fetc/passwd", 404),
    ],
)
def test_other_addresses_are_refused_in_json(service: Running, method: str, path: str, status: int) -> None:
    answer = service.call(method, path)
    assert answer.status == status
    assert answer.error


def test_query_that_is_no_truth_is_named(service: Running) -> None:
    answer = service.call("POST", "/v1/snap?wait=perhaps", snap_body())
    assert answer.status == 422
    assert "query.wait" in answer.error


@pytest.mark.parametrize(
    ("fault", "status", "text"),
    [
        (BoxError("box 0 is bad"), 422, "box: box 0 is bad"),
        (PredictionError("/secret/place"), 500, "internal: the service failed at this request; its log says why"),
        (ZeroDivisionError("/secret/place"), 500, "internal: the service failed at this request; its log says why"),
    ],
    ids=["box", "prediction", "unforeseen"],
)
def test_fault_of_the_model_is_told_without_a_trace(service: Running, fault: Exception, status: int, text: str) -> None:
    service.snapper.fault = fault
    try:
        answer = service.snap(snap_body())
        place = service.call("POST", "/v1/snap", snap_body()).headers["location"]
        until(lambda: service.call("GET", place).json["status"] != "pending")
        failed = service.call("GET", place)
    finally:
        service.snapper.fault = None
    assert (answer.status, answer.error) == (status, text)
    assert (failed.status, failed.json["status"]) == (200, "failed")
    assert f"{failed.json['error']['code']}: {failed.json['error']['message']}" == text
    assert service.snap(snap_body()).status == 200
