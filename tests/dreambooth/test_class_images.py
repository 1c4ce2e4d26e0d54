"""Class images: the same whoever draws them, kept, gone on with, and used."""

import hashlib
import io
import json
import shutil
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from artifacts.sessions import Sessions
from artifacts.store import ObjectStore
from dreambooth import base_model, class_images, draws, lora, parts, samples
from dreambooth.errors import PartnerStopped, PictureInvalid, Stopped
from dreambooth.exits import StopSignal
from dreambooth.order import Order
from dreambooth.parts import Parts
from dreambooth.recipe import Lora
from dreambooth.world import World
from PIL import Image

from tests.dreambooth.conftest import fields_of

Fields = Callable[..., dict[str, Any]]
Train = Callable[..., Any]
Make = Callable[..., Order]

ROOT = "sessions/toy/class_images/"
PRIOR = {"class_prompt": "a toy", "num_class_images": 4}
CPU = torch.device("cpu")


@pytest.fixture
def model(micro: Path) -> Parts:
    return parts.load(base_model.describe("micro", micro), CPU)


@pytest.fixture
def make(order: Fields, sessions: Sessions, tmp_path: Path) -> Make:
    """An order with prior preservation; arguments replace fields of the recipe."""
    count = 0

    def build(**changes: Any) -> Order:
        nonlocal count
        count += 1
        scratch = tmp_path / f"scratch-{count}"
        scratch.mkdir()
        made: Order = fields_of(sessions.store, scratch, order(**{"prior_preservation": PRIOR, **changes}))
        return made

    return build


@pytest.fixture(autouse=True)
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of the class images that were begun; each takes two denoising steps."""
    begun: list[int] = []

    def draw(model: Parts, states: Any, prompt: str, number: int, *others: Any) -> bytes:
        if others[-1] == draws.CLASS_IMAGE:
            begun.append(number)
        return original(model, states, prompt, number, *others)

    original = samples.draw
    monkeypatch.setattr(samples, "draw", draw)
    monkeypatch.setattr(class_images, "NUM_STEPS", 2)
    return begun


def in_bucket(store: ObjectStore) -> dict[str, bytes]:
    """The pictures of all folders by key."""
    return {found.key: store.get(found.key) for found in store.list(ROOT) if found.key.endswith(".png")}


def folders(store: ObjectStore) -> set[str]:
    return {key.removeprefix(ROOT).split("/")[0] for key in in_bucket(store)}


def test_without_prior_preservation_there_are_none(make: Make, model: Parts, drawn: list[int]) -> None:
    assert class_images.ensure(make(prior_preservation=None), model, StopSignal()) == {}
    assert drawn == []


def test_they_are_drawn_at_the_size_of_the_base_and_kept(make: Make, model: Parts, drawn: list[int]) -> None:
    wanted = make()
    made = class_images.ensure(wanted, model, StopSignal())[64]
    pictures = in_bucket(wanted.store)
    (folder,) = folders(wanted.store)
    assert [*pictures] == [f"{ROOT}{folder}/{number:05d}.png" for number in (1, 2, 3, 4)]
    assert len(set(pictures.values())) == 4
    assert {Image.open(io.BytesIO(content)).size for content in pictures.values()} == {(32, 32)}
    assert [image.sha256 for image in made] == [hashlib.sha256(content).hexdigest() for content in pictures.values()]
    assert [image.filename for image in made] == [f"class_images/{folder}/{number:05d}.png" for number in (1, 2, 3, 4)]
    assert {(image.prompt, image.pixels.shape, image.cut) for image in made} == {("a toy", (64, 64, 3), (64, 64))}
    about = json.loads(wanted.store.get(f"{ROOT}{folder}/about.json"))
    assert (about["prompt"], about["base_model"], about["size_px"]) == ("a toy", "micro", 32)
    assert class_images.ensure(make(), model, StopSignal())[64][2].sha256 == made[2].sha256
    assert drawn == [1, 2, 3, 4]


def test_every_stage_gets_them_in_its_own_size(make: Make, model: Parts) -> None:
    stages = {name: {"steps": 1, "resolution_px": edge_px} for name, edge_px in (("text_encoder", 64), ("unet", 128))}
    made = class_images.ensure(make(**stages), model, StopSignal())
    assert {edge_px: images[0].pixels.shape for edge_px, images in made.items()} == {
        64: (64, 64, 3),
        128: (128, 128, 3),
    }
    assert [image.sha256 for image in made[64]] == [image.sha256 for image in made[128]]
    assert (made[64][0].pixels[:, :] != made[64][1].pixels[:, :]).any()


def test_a_missing_one_is_drawn_again_as_it_was(make: Make, model: Parts, drawn: list[int]) -> None:
    wanted = make()
    class_images.ensure(wanted, model, StopSignal())
    before = in_bucket(wanted.store)
    lost = sorted(before)[2]
    wanted.store.delete(lost)
    drawn.clear()
    again = make(seed=7)  # not the training's seed
    torch.manual_seed(7)
    with_adapters = parts.load(again.inputs.base, CPU)
    lora.attach(with_adapters, Lora(4, 4.0), 7)  # which change nothing before they are trained
    class_images.ensure(again, with_adapters, StopSignal())
    assert drawn == [3]
    assert in_bucket(wanted.store) == before


class _StopAt(StopSignal):
    """SIGTERM before the n-th denoising step."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self._left = step

    def check(self) -> None:
        self._left -= 1
        if self._left == 0:
            self.set()
        super().check()


def test_a_stopped_run_keeps_what_is_whole_and_goes_on(make: Make, model: Parts, drawn: list[int]) -> None:
    wanted = make()
    with pytest.raises(Stopped):
        class_images.ensure(wanted, model, _StopAt(6))  # the second step of the third picture
    assert drawn == [1, 2, 3]
    whole = in_bucket(wanted.store)
    assert len(whole) == 2
    class_images.ensure(make(), model, StopSignal())
    assert drawn == [1, 2, 3, 3, 4]
    assert len(in_bucket(wanted.store)) == 4
    assert whole.items() <= in_bucket(wanted.store).items()


def test_more_may_be_wanted_later_and_extra_ones_are_ignored(make: Make, model: Parts, drawn: list[int]) -> None:
    wanted = make()
    class_images.ensure(wanted, model, StopSignal())
    (folder,) = folders(wanted.store)
    for name in ("00099.png", "mine.png", ".DS_Store", "00002.txt"):
        wanted.store.put(f"{ROOT}{folder}/{name}", b"no picture")
    fewer = class_images.ensure(make(prior_preservation={**PRIOR, "num_class_images": 2}), model, StopSignal())
    more = class_images.ensure(make(prior_preservation={**PRIOR, "num_class_images": 5}), model, StopSignal())
    assert (len(fewer[64]), len(more[64])) == (2, 5)
    assert drawn == [1, 2, 3, 4, 5]


def test_damaged_ones_are_refused_by_key(make: Make, model: Parts, drawn: list[int]) -> None:
    wanted = make()
    class_images.ensure(wanted, model, StopSignal())
    first, _, third, _ = in_bucket(wanted.store)
    wanted.store.put(first, b"")
    wanted.store.put(third, wanted.store.get(third)[:-40])
    drawn.clear()
    with pytest.raises(PictureInvalid) as refused:
        class_images.ensure(make(), model, StopSignal())
    assert [problem.split(":")[0] for problem in refused.value.problems] == [first, third]
    assert all("delete it" in problem for problem in refused.value.problems)
    assert drawn == []


def test_another_prompt_or_other_weights_have_a_folder_of_their_own(
    make: Make, model: Parts, micro: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = make()

    def ensure(**changes: Any) -> int:
        class_images.ensure(make(**changes), model, StopSignal())
        return len(folders(wanted.store))

    assert ensure() == 1
    copy = Path(shutil.copytree(micro, tmp_path / "copy"))
    assert ensure(base_model="renamed", base_model_source=str(copy)) == 1
    assert ensure(prior_preservation={**PRIOR, "weight": 0.5}) == 1
    assert ensure(prior_preservation={**PRIOR, "class_prompt": "a robot"}) == 2
    other = Path(shutil.copytree(micro, tmp_path / "other"))
    weights = other / base_model.UNET_WEIGHTS
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert ensure(base_model_source=str(other)) == 3
    monkeypatch.setattr(samples, "GUIDANCE_SCALE", 2.0)
    assert ensure() == 4


@dataclass(frozen=True)
class _Thread(World):
    """One of two processes, as a thread."""

    barrier: threading.Barrier = field(default_factory=lambda: threading.Barrier(2))
    said: list[bool] = field(default_factory=list)

    def any(self, flag: bool) -> bool:
        self.said.append(flag)
        self.barrier.wait(120)
        return any(self.said)


def test_two_processes_share_the_work_and_read_all(make: Make, model: Parts, drawn: list[int]) -> None:
    worlds = [_Thread(0, 2, CPU)]
    worlds.append(replace(worlds[0], rank=1))
    orders = [replace(make(), world=world) for world in worlds]
    with ThreadPoolExecutor(2) as pool:
        made = list(pool.map(lambda each: class_images.ensure(each, model, StopSignal())[64], orders))
    assert sorted(drawn) == [1, 2, 3, 4]
    assert [image.sha256 for image in made[0]] == [image.sha256 for image in made[1]]
    alone = in_bucket(orders[0].store)
    orders[0].store.delete_prefix(ROOT)
    class_images.ensure(make(), model, StopSignal())
    assert in_bucket(orders[0].store) == alone


def test_two_processes_stop_together(make: Make, model: Parts, drawn: list[int]) -> None:
    worlds = [_Thread(0, 2, CPU)]
    worlds.append(replace(worlds[0], rank=1))
    orders = [replace(make(), world=world) for world in worlds]
    signals = [StopSignal(), _StopAt(3)]  # only one of them is told
    with ThreadPoolExecutor(2) as pool:
        ends = [pool.submit(class_images.ensure, each, model, stop) for each, stop in zip(orders, signals, strict=True)]
    assert [type(end.exception()) for end in ends] == [PartnerStopped, Stopped]
    assert len(in_bucket(orders[0].store)) == 3


def test_a_run_trains_with_them_and_tells_how_far_it_is(order: Fields, train: Train, drawn: list[int]) -> None:
    prior: Mapping[str, Any] = {"class_prompt": "a toy of many colours and shapes", "num_class_images": 11}
    changes = {"text_encoder": {"steps": 1, "learning_rate": 1e-3}, "unet": {"steps": 2, "learning_rate": 1e-3}}
    first = train(order(prior_preservation=prior, **changes))
    said = first.messages("info")
    assert "class images: 0 of 11 are there; drawing 11 at 32 px: a toy of many colours" in said
    assert "class images: 10 of 11, " in said
    assert "class images: 11 of 11\n" in said
    assert "text encoder reads 16; its end is ignored: 'a toy of many colours" in first.messages("warning")
    second = train(order(prior_preservation=prior, **changes))
    assert "class images: 11 of 11 are there\n" in second.messages("info")
    assert drawn == [*range(1, 12)]
    assert second.losses() == first.losses()
    assert second.digests() == first.digests()
    weightless = train(order(prior_preservation={**prior, "weight": 0.01}, **changes))
    assert weightless.losses()[0] < first.losses()[0]  # the same draws, less of the class images' loss
