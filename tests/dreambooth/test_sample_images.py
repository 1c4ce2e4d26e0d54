"""Samples drawn by the training process and beside it: the same pixels, recorded before a point that lies behind them."""

import errno
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from artifacts.sessions import Sessions
from dreambooth import cores, lora, parts, records, sample_images, samples, stages
from dreambooth.exits import StopSignal
from dreambooth.helper import Helper
from dreambooth.lease import Lease
from dreambooth.order import Order
from dreambooth.parts import Parts
from dreambooth.plan import Plan
from dreambooth.records import Records
from dreambooth.sample_images import SampleImages
from dreambooth.state import StageState
from dreambooth.writer_record import ListedPoint

from tests.dreambooth.conftest import RUN, Outcome, fields_of, read_records
from tests.dreambooth.test_helper import process_id, until, wait_for

SAMPLES = {"sample_prompts": ["a toy", "sks"], "sample_every_steps": 1}
LONG = Plan((), memory_bytes=0, available_bytes=2**40, seconds=60.0)
SHORT = replace(LONG, seconds=1.0)
JOINT = {"stages": "joint_then_discard", "unet": {"steps": 0}}


@pytest.fixture(autouse=True)
def _quick_on_two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "count", lambda: 2)
    monkeypatch.setattr(samples, "NUM_STEPS", 2)
    monkeypatch.setattr(records, "_FLUSH_SECONDS", 0.05)


@dataclass
class Studio:
    """A training that has moved its weights, and its records."""

    order: Order
    model: Parts
    state: StageState
    helper: Helper

    def images(self, plan: Plan = LONG) -> SampleImages:
        made = SampleImages(self.order, self.model, plan, self.helper, StopSignal())
        made.finish()  # the helper is ready
        return made

    def drawn(self, made: SampleImages, *, then_trains: bool = False) -> list[bytes]:
        """What is drawn of the weights as they are now. then_trains: they change before it can be ready."""
        before = len(self.recorded())
        made.draw(self.state.stage, self.state)
        if then_trains:
            self.train()
        made.finish()
        return [content for _, content in self.recorded()[before:]]

    def recorded(self) -> list[tuple[str, bytes]]:
        """Keys and pixels, in the order of their lines."""
        assert self.order.records is not None
        self.order.records.flush()
        lines = [line for line in read_records(self.order.store) if line["kind"] == "sample"]
        return [(line["object"], self.order.store.get(line["object"])) for line in lines]

    @torch.no_grad()
    def train(self) -> None:
        """A step: every number that trains changes."""
        numbers = torch.Generator().manual_seed(self.state.step)
        for name in self.state.stage.rates:
            for _, weight in stages.trainable(self.model, name):
                weight += 0.05 * torch.randn(weight.shape, generator=numbers)
        self.state.advance()


@pytest.fixture(scope="module")
def helper() -> Iterator[Helper]:
    """One for all tests: its start takes seconds."""
    with Helper(lambda text, level: pytest.fail(text)) as made:
        yield made


@pytest.fixture
def studio(
    sessions: Sessions, order: Callable[..., dict[str, Any]], helper: Helper, tmp_path: Path
) -> Iterator[Callable[..., Studio]]:
    log = Records(sessions.store, f"{RUN}/")

    def make(**changes: Any) -> Studio:
        made = replace(fields_of(sessions.store, tmp_path, order(**{**SAMPLES, **changes})), records=log)
        model = parts.load(made.inputs.base, torch.device("cpu"))
        if made.recipe.lora:
            lora.attach(model, made.recipe.lora, made.recipe.seed)
        state: StageState | None = None
        for stage in stages.of(made.recipe):
            state = StageState(made.recipe, model, stage, state)
            found = Studio(made, model, state, helper)
            found.train()
        return found

    yield make
    log.close(30)


@pytest.mark.parametrize(
    "recipe",
    [{}, JOINT, {"ema_decay": 0.5}, {**JOINT, "lora": {"rank": 2, "alpha": 2}}],
    ids=["unet", "both", "ema", "lora"],
)
def test_beside_training_the_same_pixels_are_drawn(studio: Callable[..., Studio], recipe: dict[str, Any]) -> None:
    work = studio(**recipe)
    here, beside = work.images(SHORT), work.images()
    first, second = work.drawn(here)
    assert first != second
    assert work.drawn(beside, then_trains=True) == [first, second]
    assert work.drawn(here) != [first, second]  # these weights can be told apart
    assert work.drawn(beside) == work.drawn(here)
    assert not list(work.order.scratch.glob("sample-*"))


def test_while_the_helper_is_busy_samples_are_drawn_here(studio: Callable[..., Studio], tmp_path: Path) -> None:
    work = studio()
    beside = work.images()
    busy = threading.Thread(target=work.helper.call, args=(wait_for, str(tmp_path / "free")))
    busy.start()
    until(tmp_path / "free.begun")
    work.order.records.flush()
    beside.draw(work.state.stage, work.state)  # waits behind that
    beside.draw(work.state.stage, work.state)
    assert len(work.recorded()) == 2
    (tmp_path / "free").touch()
    busy.join()
    beside.finish()
    assert len(work.recorded()) == 4


def test_when_the_helper_is_killed_no_sample_is_missing(studio: Callable[..., Studio]) -> None:
    reports: list[str] = []
    with Helper(lambda text, level: reports.append(text)) as mortal:
        work = replace(studio(), helper=mortal)
        here, beside = work.images(SHORT), work.images()
        wanted = work.drawn(here)
        os.kill(mortal.call(process_id), signal.SIGKILL)
        assert work.drawn(beside, then_trains=True) == wanted
    assert len(reports) == 1


def test_without_room_for_a_copy_of_the_weights_samples_are_drawn_here(
    studio: Callable[..., Studio], monkeypatch: pytest.MonkeyPatch
) -> None:
    work = studio()
    beside = work.images()
    monkeypatch.setattr(StageState, "write_weights", _fails(OSError(errno.ENOSPC, "No space left on device")))
    assert len(work.drawn(beside)) == 2
    assert not list(work.order.scratch.glob("sample-*"))
    monkeypatch.setattr(StageState, "write_weights", _fails(PermissionError("no")))
    with pytest.raises(PermissionError):
        beside.draw(work.state.stage, work.state)


@pytest.mark.parametrize(
    ("changes", "plan", "num_cores"),
    [
        ({}, SHORT, 2),
        ({}, replace(LONG, seconds=None), 2),
        ({}, replace(LONG, available_bytes=2**29), 2),
        ({}, LONG, 1),
        ({"sample_every_steps": 0}, LONG, 2),
        ({"sample_prompts": []}, LONG, 2),
    ],
    ids=["short", "very-short", "memory", "one-core", "at-the-end", "no-prompts"],
)
def test_a_helper_that_would_not_pay_is_not_started(
    studio: Callable[..., Studio], monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], plan: Plan, num_cores: int
) -> None:
    work = studio(**changes)
    monkeypatch.setattr(cores, "count", lambda: num_cores)
    monkeypatch.setattr(Helper, "call", _fails(AssertionError("the helper was asked")))
    assert len(work.drawn(work.images(plan))) == len(work.order.recipe.sample_prompts)


def test_where_training_uses_all_cores_none_is_taken_from_it(
    studio: Callable[..., Studio], monkeypatch: pytest.MonkeyPatch
) -> None:
    work = studio()
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(Helper, "call", _fails(AssertionError("the helper was asked")))
    assert len(work.drawn(work.images())) == 2


def test_a_point_is_visible_when_the_samples_before_it_are(
    train: Callable[..., Outcome],
    order: Callable[..., dict[str, Any]],
    sessions: Sessions,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Points of a whole run, all of whose samples are drawn beside it and take their time."""
    original, begun, seen = sample_images._draw_copy, [], []

    def slow(*arguments: Any) -> list[bytes]:
        begun.append(arguments)
        time.sleep(0.2)
        return original(*arguments)

    def publish(lease: Lease, points: Sequence[ListedPoint], *rest: Any) -> None:
        if points:
            drawn = [line["step"] for line in read_records(sessions.store) if line["kind"] == "sample"]
            seen.append((points[-1].step, drawn))
        publish_of_lease(lease, points, *rest)

    publish_of_lease = Lease.publish
    monkeypatch.setattr(sample_images, "_MIN_SECONDS", 0)
    monkeypatch.setattr(sample_images, "_draw_copy", slow)
    monkeypatch.setattr(Helper, "call", lambda helper, work, *arguments: work(*arguments))
    monkeypatch.setattr(Lease, "publish", publish)
    wanted = order(
        sample_prompts=["a toy"], sample_every_steps=1, resume_point_every_steps=1, text_encoder={"steps": 0}
    )
    train(wanted, run=RUN)
    assert begun
    assert [step for step, _ in seen][-1] == 3
    for step, drawn in seen:
        assert set(range(1, step + 1)) <= set(drawn)


def _fails(error: Exception) -> Callable[..., Any]:
    def fail(*arguments: Any, **named: Any) -> Any:
        raise error

    return fail
