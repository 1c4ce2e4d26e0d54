import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from artifacts.errors import CaptionInvalid
from artifacts.sessions import Sessions
from dreambooth import dataset, watch
from dreambooth.dataset import TrainingImage
from dreambooth.errors import PictureInvalid, SessionUnusable, Stopped
from dreambooth.exits import StopSignal
from dreambooth.recipe import Recipe, parse
from dreambooth.watch import Watch
from PIL import Image

Load = Callable[..., tuple[TrainingImage, ...]]


@pytest.fixture
def recipe(order: Callable[..., dict[str, Any]]) -> Recipe:
    return parse(json.dumps(order(use_captions=True)))


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def at_64_px(sessions: Sessions, recipe: Recipe, warnings: list[str] | None = None) -> tuple[TrainingImage, ...]:
        warn = (warnings if warnings is not None else []).append
        return dataset.load(sessions, "toy", recipe, [64], tmp_path, warn)[64]

    return at_64_px


def test_images_come_in_order_with_prompt_and_pixels(load: Load, sessions: Sessions, recipe: Recipe) -> None:
    sessions.set_caption("toy", "sks_toy (1).png", "on grass")
    found = load(sessions, recipe)
    assert [image.filename for image in found] == [f"sks_toy ({n}).png" for n in range(3)]
    assert [image.prompt for image in found] == ["sks toy", "sks toy on grass", "sks toy"]
    assert all(image.pixels.shape == (64, 64, 3) for image in found)
    assert [image.sha256 for image in found] == [image.sha256 for image in sessions.images("toy")]


def test_all_bad_files_are_named_at_once(
    load: Load, sessions: Sessions, recipe: Recipe, bad_files: dict[str, bytes]
) -> None:
    for name, content in bad_files.items():
        sessions.put_image("toy", name, content)
    with pytest.raises(PictureInvalid) as refused:
        load(sessions, recipe)
    assert sorted(problem.split(":")[0] for problem in refused.value.problems) == sorted(bad_files)


@pytest.fixture
def bad_files() -> dict[str, bytes]:
    import io

    def encoded(image: Image.Image, **options: Any) -> bytes:
        file = io.BytesIO()
        image.save(file, "PNG", **options)
        return file.getvalue()

    plain = Image.effect_noise((64, 64), 50)
    return {
        "text.png": b"these are words",
        "empty.png": b"",
        "cut.png": encoded(plain)[:700],
        "dot.png": encoded(Image.new("RGB", (1, 1))),
        "moving.png": encoded(plain, save_all=True, append_images=[Image.new("L", (64, 64))]),
        "17.png": encoded(plain),
    }


def test_caption_without_image_is_refused_by_name(load: Load, sessions: Sessions, recipe: Recipe) -> None:
    sessions.store.put("sessions/toy/captions/lost.txt", b"a toy")
    with pytest.raises(PictureInvalid, match=r"captions/lost\.txt belongs to no image"):
        load(sessions, recipe)


def test_caption_that_is_not_text_is_refused_by_name(load: Load, sessions: Sessions, recipe: Recipe) -> None:
    sessions.store.put("sessions/toy/captions/sks_toy (0).txt", b"\xff\xfe\xff")
    with pytest.raises(CaptionInvalid, match=r"sks_toy \(0\)\.txt"):
        load(sessions, recipe)


def test_missing_caption_is_refused_only_if_required(
    load: Load, sessions: Sessions, order: Callable[..., dict[str, Any]]
) -> None:
    sessions.set_caption("toy", "sks_toy (0).png", "on grass")
    strict = parse(json.dumps(order(use_captions=True, require_captions=True)))
    with pytest.raises(PictureInvalid) as refused:
        load(sessions, strict)
    assert [problem.split(":")[0] for problem in refused.value.problems] == ["sks_toy (1).png", "sks_toy (2).png"]


def test_image_changed_behind_its_digest_is_refused(load: Load, sessions: Sessions, recipe: Recipe) -> None:
    key = "sessions/toy/instance_images/sks_toy (1).png"
    content = sessions.store.get(key)
    metadata = {"sha256": sessions.images("toy")[1].sha256, "width": "64", "height": "64"}
    sessions.store.put(key, content[:-1] + b"\0", metadata=metadata)
    with pytest.raises(PictureInvalid, match=r"sks_toy \(1\)\.png: expected sha256"):
        load(sessions, recipe)


def test_hidden_file_is_skipped_and_a_duplicate_is_reported(load: Load, sessions: Sessions, recipe: Recipe) -> None:
    sessions.store.put("sessions/toy/instance_images/.DS_Store", b"Bud1")
    sessions.put_image("toy", "sks_toy again.png", sessions.read_image("toy", "sks_toy (0).png"), 64, 64)
    warnings: list[str] = []
    assert len(load(sessions, recipe, warnings)) == 4
    assert any("sks_toy again.png is the same picture as sks_toy (0).png" in warning for warning in warnings)


def test_many_duplicates_are_reported_in_a_few_words(load: Load, sessions: Sessions, recipe: Recipe) -> None:
    content = sessions.read_image("toy", "sks_toy (0).png")
    for number in range(30):
        sessions.put_image("toy", f"twin {number}.png", content, 64, 64)
    warnings: list[str] = []
    assert len(load(sessions, recipe, warnings)) == 33
    assert len(warnings) == 21
    assert warnings[-1] == "and 10 more images are there twice"


def test_how_far_it_is_is_told(
    sessions: Sessions, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "_TELL_SECONDS", 0.0)
    told: list[str] = []
    dataset.load(sessions, "toy", recipe, [64], tmp_path, print, Watch(told.append))
    assert told == [f"{what} images: {done} of 3" for what in ("looking at", "fetching") for done in (1, 2)]


def test_sigterm_ends_it_before_all_images_are_there(
    sessions: Sessions, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop, read, fetched = StopSignal(), sessions.read_image, []
    for number in range(100):
        sessions.put_image("toy", f"{number}.png", b"not looked at")

    def read_once(session: str, filename: str) -> bytes:
        fetched.append(filename)
        stop.set()
        return read(session, filename)

    monkeypatch.setattr(sessions, "read_image", read_once)
    with pytest.raises(Stopped):
        dataset.load(sessions, "toy", recipe, [64], tmp_path, print, Watch(stop=stop))
    assert 0 < len(fetched) < 60


def test_image_put_into_the_bucket_by_hand_is_trained_on(load: Load, sessions: Sessions, recipe: Recipe) -> None:
    content = sessions.read_image("toy", "sks_toy (0).png")
    sessions.store.put("sessions/toy/instance_images/by hand.png", content)
    assert load(sessions, recipe)[0].filename == "by hand.png"


def test_unknown_and_empty_sessions_are_refused(sessions: Sessions, recipe: Recipe, tmp_path: Path) -> None:
    sessions.create("empty")
    for name, reason in (("empty", "has no images"), ("nobody", "does not exist")):
        with pytest.raises(SessionUnusable, match=reason):
            dataset.load(sessions, name, recipe, [64], tmp_path, print)
