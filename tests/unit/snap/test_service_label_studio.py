"""Tests of roiseg.snap.label_studio: drawn rectangles come back snapped, in percent, and nothing else is touched."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from snap_service_factory import BUFFER, LIMITS, Running, base64_text, encoded_image, running

LOCAL = "/data/local-files/?d=inner%2Fa%20b.png"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    root: Path = tmp_path_factory.mktemp("documents")
    (root / "served" / "inner").mkdir(parents=True)
    (root / "served" / "inner" / "a b.png").write_bytes(encoded_image(blue=80, hw=(50, 200)))
    (root / "secret.png").write_bytes(encoded_image())
    with running(root / "served") as found:
        yield found


def rectangle(identity: str = "r1", **values: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    """A rectangle as Label Studio writes it: 10 to 40 % of the width, 20 to 60 % of the height."""
    value = {"x": 10, "y": 20, "width": 30, "height": 40, "rotation": 0, "rectanglelabels": ["cat"]}
    return {
        "id": identity,
        "type": "rectanglelabels",
        "from_name": "label",
        "to_name": "image",
        "origin": "manual",
        "original_width": 200,
        "original_height": 50,
        "image_rotation": 0,
        "value": value | values.pop("value", {}),
        **values,
    }


def task(*regions: dict[str, Any], image: str = LOCAL, **values: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    return {"id": 1, "data": {"image": image}, "annotations": [{"id": 7, "result": list(regions)}], **values}


def results(service: Running, *tasks: dict[str, Any], **values: Any) -> Any:  # noqa: ANN401 - JSON
    answer = service.call("POST", "/predict", {"tasks": list(tasks), "label_config": "<View/>", "project": "1.17", **values})
    assert answer.status == 200, answer.json
    assert len(answer.json["results"]) == len(tasks)
    return answer.json["results"]


def test_rectangle_is_snapped_in_percent(service: Running) -> None:
    (found,) = results(service, task(rectangle()))
    (region,) = found["result"]
    # (20, 10)-(80, 30) in pixels; blue 80 moves left and right by 0.8, the buffer the top, the bottom stays.
    assert region["value"] == {
        "x": pytest.approx(10.4),
        "y": pytest.approx((10 + BUFFER) * 2),
        "width": pytest.approx(30),
        "height": pytest.approx((20 - BUFFER) * 2),
        "rotation": 0,
        "rectanglelabels": ["cat"],
    }
    assert {key: region[key] for key in ("id", "type", "from_name", "to_name", "origin")} == {
        key: rectangle()[key] for key in ("id", "type", "from_name", "to_name", "origin")
    }
    assert (region["original_width"], region["original_height"]) == (200, 50)
    assert region["score"] == found["score"] == 0.1
    assert region["meta"]["confidences"] == {"left": 0.9, "top": 0.4, "right": 0.8, "bottom": 0.1}
    assert region["meta"]["kept"] == ["bottom"]
    assert region["meta"]["text"] == ["left 0.90, top 0.40 (review), right 0.80, bottom 0.10 (review)"]
    assert found["model_version"] == service.call("POST", "/setup", {"project": "1"}).json["model_version"]


@pytest.mark.parametrize(
    "region",
    [
        rectangle(value={"rotation": 3}),
        rectangle(image_rotation=90),
        rectangle(original_width=50, original_height=200),
        rectangle(value={"width": 0}),
        rectangle(value={"height": -4}),
        rectangle(value={"x": 101}),
        rectangle(value={"x": 1e308, "width": 1e308}),
    ],
    ids=["turned", "turned image", "other size", "no width", "negative", "outside", "far outside"],
)
def test_what_cannot_be_snapped_comes_back_as_it_was(service: Running, region: dict[str, Any]) -> None:
    (found,) = results(service, task(region))
    assert found["result"] == [region]
    assert "score" not in found
    (both,) = results(service, task(region, rectangle("r2")))
    assert both["result"][0] == region
    assert both["result"][1]["id"] == "r2"
    assert both["result"][1]["score"] == 0.1


def test_other_shapes_are_left_out(service: Running) -> None:
    brush = {"id": "b", "type": "brushlabels", "value": {"rle": [1, 2, 3]}}
    (found,) = results(service, task(brush, rectangle(type="rectangle")))
    assert [region["type"] for region in found["result"]] == ["rectangle"]
    assert results(service, task(brush))[0]["result"] == []
    assert results(service, {"id": 1, "data": {"image": LOCAL}})[0]["result"] == []


def test_freshest_rectangles_are_taken(service: Running) -> None:
    def ids(**values: Any) -> list[str]:  # noqa: ANN401 - JSON
        (found,) = results(service, task(rectangle("annotated"), **values), params={"context": None})
        return [region["id"] for region in found["result"]]

    assert ids() == ["annotated"]
    assert ids(predictions=[{"result": [rectangle("predicted")]}]) == ["annotated"]
    assert ids(annotations=[], predictions=[{"result": [rectangle("predicted")]}]) == ["predicted"]
    assert ids(drafts=[{"result": [rectangle("drafted")]}]) == ["drafted"]
    assert ids(annotations=[{"result": [rectangle("first")]}, {"result": [rectangle("last")]}]) == ["last"]
    cancelled = {"result": [rectangle("last")], "was_cancelled": True}
    assert ids(annotations=[{"result": [rectangle("first")]}, cancelled]) == ["first"]
    drawn = {"context": {"result": [rectangle("drawn")], "annotation_id": 3}}
    (found,) = results(service, task(rectangle("annotated")), params=drawn)
    assert found["result"][0]["id"] == "drawn"


def test_data_uri_and_a_key_of_another_name(service: Running) -> None:
    uri = f"data:image/png;base64,{base64_text(encoded_image(blue=0, hw=(50, 200)))}"
    first, second = results(service, task(rectangle(), image=uri), task(rectangle(), data={"photo": LOCAL}))
    assert first["result"][0]["value"]["x"] == pytest.approx(10)
    assert second["result"][0]["value"]["x"] == pytest.approx(10.4)


@pytest.mark.parametrize(
    ("image", "status"),
    [
        ("/data/local-files/?d=../secret.png", 400),
        ("/data/local-files/?d=..%2Fsecret.png", 400),
        ("/data/local-files/?d=%2e%2e%2fsecret.png", 400),
        ("/data/local-files/?d=%252e%252e%252fsecret.png", 404),
        ("/data/local-files/?d=/etc/passwd", 400),
        ("/data/local-files/?d=inner%5C..%5C..%5Csecret.png", 400),
        ("/data/local-files/?d=inner/a%20b.png%00.png", 400),
        ("/data/local-files/?d=inner/absent.png", 404),
        ("/data/local-files/?d=", 422),
        ("/data/local-files/?d=a&d=b", 422),
        ("/data/local-files/?" + "&".join(["d=a"] * 20), 422),
        ("/data/local-files/../?d=inner/a%20b.png", 422),
        ("http://127.0.0.1:1/data/local-files/?d=inner/a%20b.png", 422),
        ("//127.0.0.1:1/data/local-files/?d=inner/a%20b.png", 422),
        ("http://[", 422),
        ("file:///etc/passwd", 422),
        ("s3://bucket/a.png", 422),
        ("/data/upload/1/a.png", 422),
        ("data:image/png,abc", 422),
        ("data:image/png;base64,!!!", 422),
        ("data:image/png;base64,", 422),
        ("", 422),
    ],
)
def test_images_of_other_places_are_refused(service: Running, image: str, status: int) -> None:
    answer = service.call("POST", "/predict", {"tasks": [task(rectangle()), task(rectangle(), image=image)]})
    assert answer.status == status, answer.json
    assert ": tasks.1: " in answer.error


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        ({}, 422, "tasks: Field required"),
        ({"tasks": []}, 422, "tasks: List should have at least 1 item"),
        ({"tasks": [{"data": {"image": 5}}]}, 422, "tasks.0: data has no text 'image'"),
        ({"tasks": [{"data": {"a": LOCAL, "b": LOCAL}}]}, 422, "tasks.0: data has no text 'image'"),
        ({"tasks": [{"data": []}]}, 422, "tasks.0.data: Input should be an object"),
        ({"tasks": [task({"type": "rectanglelabels"})]}, 422, "tasks.0: rectangle 0: id: Field required"),
        ({"tasks": [task(rectangle(value={"x": "a"}))]}, 422, "tasks.0: rectangle 0: value.x: Input should be a valid number"),
        ({"tasks": [task(*[rectangle()] * (LIMITS.boxes + 1))]}, 413, "tasks: 1 with 9 rectangles, expected at most 8 of either"),
        ({"tasks": [task()] * (LIMITS.boxes + 1)}, 413, "tasks: 9 with 0 rectangles, expected at most 8 of either"),
    ],
)
def test_tasks_that_cannot_be_used_are_named(service: Running, body: dict[str, Any], status: int, text: str) -> None:
    answer = service.call("POST", "/predict", body)
    assert answer.status == status, answer.json
    assert text in answer.error


def test_predict_and_setup_take_json_only(service: Running) -> None:
    for path in ("/predict", "/setup"):
        assert service.call("POST", path, b"a=b", {"Content-Type": "application/x-www-form-urlencoded"}).status == 415
        assert service.call("POST", path, bytes(LIMITS.body_bytes + 1)).status == 413
    assert service.call("POST", "/predict", b"{").status == 400
    assert service.service.budget.held == 0


def test_health(service: Running) -> None:
    assert service.call("GET", "/health").json == {"status": "UP", "model_class": "RoisegSnapper"}


def test_answers_can_be_sent_again(service: Running) -> None:
    """What is snapped can be drawn upon and snapped once more."""
    (found,) = results(service, task(rectangle()))
    (again,) = results(service, task(*json.loads(json.dumps(found["result"]))))
    assert again["result"][0]["value"]["x"] == pytest.approx(10.8)
