import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from artifacts.errors import AccessDenied, StoreUnavailable
from artifacts.store import ObjectStat, ObjectStore
from dreambooth import history
from dreambooth.curves import Curves
from dreambooth.records import Records
from dreambooth.resume_point import Position
from PIL import Image

FOLDER = "sessions/toy/runs/first/"
NEWER = {
    "text_encoder_learning_rate": 1e-6,
    "step_seconds": 0.5,
    "data_wait_seconds": 0.125,
    "model_flops_utilization": 0.25,
}


def progress(step: int) -> dict[str, Any]:
    numbers = {"loss": 1 / step, "smoothed_loss": 1.0, "learning_rate": 1e-6}
    pace = {"images_per_second": 3.0, "eta_seconds": 4.0 - step}
    return {"kind": "progress", "stage": "unet", "step": step, **numbers, **pace}


def png(colour: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(file, "PNG")
    return file.getvalue()


def lines(store: ObjectStore) -> list[dict[str, Any]]:
    keys = [found.key for found in store.list(f"{FOLDER}events/")]
    return [json.loads(line) for key in keys for line in store.get(key).splitlines()]


def test_every_line_arrives_once_and_in_order(store: ObjectStore) -> None:
    records = Records(store, FOLDER)
    for step in range(1, 501):
        records.add(progress(step))
    records.finished("toy-1")
    records.close(30)
    found = lines(store)
    assert [line["step"] for line in found[:-1]] == list(range(1, 501))
    assert (found[-1]["kind"], found[-1]["checkpoint"]) == ("finished", "toy-1")


def test_attempts_are_counted_and_named(store: ObjectStore) -> None:
    for attempt in (1, 2):
        records = Records(store, FOLDER)
        assert records.attempt == attempt
        records.message("hello")
        records.close(30)
    keys = [found.key for found in store.list(FOLDER)]
    assert keys == [f"{FOLDER}events/01-00000001.jsonl", f"{FOLDER}events/02-00000001.jsonl"]


def test_attempts_beyond_99_have_numbers_of_their_own_and_follow_each_other(store: ObjectStore) -> None:
    for attempt in (9, 99):
        line = json.dumps(progress(attempt)) + "\n"
        store.put(f"{FOLDER}events/{attempt:02d}-00000001.jsonl", line.encode())
    store.put(f"{FOLDER}events/notes.txt", b"of a person")
    for attempt in (100, 101):
        records = Records(store, FOLDER)
        assert records.attempt == attempt
        records.add({**progress(attempt), "step": 99})  # the step that attempt 99 recorded, too
        records.close(30)
    keys = [key for _, key in history.files(store, f"{FOLDER}events/")]
    assert [key.removeprefix(f"{FOLDER}events/").split("-")[0] for key in keys] == ["09", "99", "100", "101"]
    found = history.until(store, f"{FOLDER}events/", Position("unet", 0, 99))
    assert [(line["step"], line["loss"]) for line in found] == [(9, 1 / 9), (99, 1 / 101)]


def test_a_sample_is_there_before_its_line(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    put = store.put
    monkeypatch.setattr(store, "put", lambda key, *rest, **more: written.append(key) or put(key, *rest, **more))
    records = Records(store, FOLDER)
    records.sample("unet", 150, 1, "a toy", b"png")
    records.close(30)
    assert written == [f"{FOLDER}samples/unet-000150-1.png", f"{FOLDER}events/01-00000001.jsonl"]
    assert lines(store)[0]["object"] == written[0]


@pytest.fixture
def failing(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> list[Exception]:
    """Errors that the next writes meet, one each."""
    errors: list[Exception] = []
    put: Callable[..., ObjectStat] = store.put

    def faulty(*arguments: Any, **more: Any) -> ObjectStat:
        if errors:
            raise errors.pop(0)
        return put(*arguments, **more)

    monkeypatch.setattr(store, "put", faulty)
    return errors


def test_lines_wait_for_a_store_that_is_away(store: ObjectStore, failing: list[Exception]) -> None:
    failing.extend([StoreUnavailable("key", "store", "gone")] * 2)
    records = Records(store, FOLDER)
    for step in range(1, 4):
        records.add(progress(step))
    records.close(30)
    assert [line["step"] for line in lines(store)] == [1, 2, 3]
    assert not failing


def test_a_store_that_stays_away_is_reported(store: ObjectStore, failing: list[Exception]) -> None:
    failing.extend([StoreUnavailable("key", "store", "gone")] * 1000)
    records = Records(store, FOLDER)
    records.add(progress(1))
    with pytest.raises(StoreUnavailable, match="the last records were not taken"):
        records.close(0.1)
    failing.clear()
    records.close(30)
    assert [line["step"] for line in lines(store)] == [1]


def test_a_refusal_reaches_the_thread_that_trains(store: ObjectStore, failing: list[Exception]) -> None:
    failing.append(AccessDenied("key", "store", "no"))
    records = Records(store, FOLDER)
    records.add(progress(1))
    with pytest.raises(AccessDenied):
        records.close(30)
    with pytest.raises(AccessDenied):
        records.add(progress(2))


def points_of(content: bytes) -> dict[tuple[str, int], Any]:
    """The values of a TensorBoard event file by tag and step."""
    from tensorboardX.proto.event_pb2 import Event

    offset, points = 0, {}
    while offset < len(content):
        length = int.from_bytes(content[offset : offset + 8], "little")
        event = Event.FromString(content[offset + 12 : offset + 12 + length])
        points.update({(value.tag, event.step): value for value in event.summary.value})
        offset += 12 + length + 4
    return points


def test_curves_and_samples_reach_the_bucket_as_tensorboard_files(store: ObjectStore, tmp_path: Path) -> None:
    records = Records(store, FOLDER, Curves(tmp_path / "curves"))
    for step in (1, 2):
        records.add(progress(step))
    records.add({**progress(4), **NEWER})
    records.sample("unet", 4, 0, "a toy, on grass", png("red"))
    records.close(30)
    samples, curves = sorted(store.list(f"{FOLDER}tensorboard/"), key=lambda found: "/samples/" not in found.key)
    points = points_of(store.get(curves.key))
    assert {step: points[("unet/loss", step)].simple_value for step in (1, 2, 4)} == {1: 1.0, 2: 0.5, 4: 0.25}
    assert points[("unet/images_per_second", 4)].simple_value == 3.0
    assert points[("unet/eta_seconds", 1)].simple_value == 3.0
    assert {tag: points[(f"unet/{tag}", 4)].simple_value for tag in NEWER} == pytest.approx(NEWER)
    assert ("unet/step_seconds", 2) not in points  # as from an older program
    picture = points_of(store.get(samples.key))[("unet/a_toy_on_grass", 4)].image
    assert Image.open(io.BytesIO(picture.encoded_image_string)).getpixel((4, 4)) == (255, 0, 0)


def test_a_deleted_sample_image_is_left_out_of_the_curves_of_the_next_attempt(
    store: ObjectStore, tmp_path: Path
) -> None:
    first = Records(store, FOLDER)
    for step, colour in ((1, "red"), (2, "blue")):
        first.add(progress(step))
        first.sample("unet", step, 0, "a toy", png(colour))
    first.close(30)
    store.delete(f"{FOLDER}samples/unet-000001-0.png")
    second = Records(store, FOLDER, Curves(tmp_path / "curves"))
    second.begin(Position("unet", 0, 2))
    second.close(30)
    samples, curves = sorted(store.list(f"{FOLDER}tensorboard/"), key=lambda found: "/samples/" not in found.key)
    assert {step for tag, step in points_of(store.get(curves.key)) if tag == "unet/loss"} == {1, 2}
    assert [place for place in points_of(store.get(samples.key)) if place[0]] == [("unet/a_toy", 2)]
