"""Runs that end before their end, and go on: what is equal, what is refused, what is told."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from artifacts.checkpoints import Checkpoints
from artifacts.errors import NotFound
from artifacts.sessions import Sessions
from artifacts.store import ObjectStore
from dreambooth import loop, loss, point_files, samples
from dreambooth.errors import Diverged, ResumePointUnusable, Stopped
from dreambooth.exits import StopSignal
from dreambooth.helper import Helper

from tests.dreambooth.conftest import Outcome, encoded, picture, read_records


@pytest.fixture(scope="session")
def micro(shallow: Path) -> Path:
    return shallow


Order = Callable[..., dict[str, Any]]
Train = Callable[..., Outcome]
RUN = "sessions/toy/runs/first"


class StopAfter(StopSignal):
    """SIGTERM that arrives at the n-th look at it, counted over the whole run."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self._left = looks

    def is_set(self) -> bool:
        self._left -= 1
        if self._left <= 0:
            self.set()
        return super().is_set()


def places(outcome: Outcome) -> list[tuple[str, int]]:
    return [(line["stage"], line["step"]) for line in outcome.records if line["kind"] == "progress"]


@pytest.fixture
def stopped(train: Train) -> Callable[..., None]:
    """Begin a run and stop it by SIGTERM at the n-th micro-step."""

    def begin(order: dict[str, Any], looks: int, run: str = RUN) -> None:
        with pytest.raises(Stopped):
            train(order, run=run, stop=StopAfter(looks))

    return begin


# Inside an accumulation of the first stage, between the stages, inside one of the second. `test_torture` kills anywhere.
@pytest.mark.parametrize("looks", [2, 5, 8])
def test_stopped_at_any_step_it_goes_on_bit_for_bit(
    order: Order, train: Train, stopped: Callable[..., None], looks: int
) -> None:
    wanted = order(text_encoder={"steps": 2, "learning_rate": 1e-4}, gradient_accumulation_steps=2)
    whole = train(wanted)
    stopped(wanted, looks)
    resumed = train(wanted, run=RUN)
    assert places(resumed) == places(whole)
    assert resumed.losses() == whole.losses()
    assert resumed.digests() == whole.digests()
    assert resumed.manifest.metrics["unet"] == whole.manifest.metrics["unet"]
    assert resumed.manifest.metrics["inexact"] is False


@pytest.mark.parametrize(("least_bytes", "is_helped"), [(0, True), (2**40, False)], ids=["large", "small"])
def test_large_points_are_uploaded_by_the_helper(
    order: Order, train: Train, monkeypatch: pytest.MonkeyPatch, least_bytes: int, is_helped: bool
) -> None:
    asked: list[Any] = []
    call = Helper.call

    def listen(helper: Helper, work: Any, *arguments: Any) -> Any:
        asked.append(work)
        return call(helper, work, *arguments)

    monkeypatch.setattr(Helper, "call", listen)
    monkeypatch.setattr(point_files, "MIN_HELPED_BYTES", least_bytes)
    outcome = train(order(resume_point_every_steps=1, keep_resume_points=9), run=RUN)
    points = [line["object"] for line in outcome.records if line["kind"] == "resume_point"]
    assert asked == [point_files.upload_to] * (len(points) if is_helped else 0)
    assert points
    files = {found.key.rsplit("/", 1)[1] for found in outcome.store.list(points[-1])}
    assert files == {"manifest.json", "optimizer.pt", "optimizer.safetensors", "weights.safetensors"}


def test_sigterm_saves_and_the_next_attempt_says_from_where(
    order: Order, train: Train, stopped: Callable[..., None]
) -> None:
    stopped(order(), 4)
    resumed = train(order(), run=RUN)
    assert "going on from the resume point at step 1 of stage unet" in resumed.messages("info")
    points = [line for line in resumed.records if line["kind"] == "resume_point"]
    assert [(line["stage"], line["step"]) for line in points] == [("text_encoder", 2), ("unet", 1), ("unet", 3)]
    assert all(line["size_bytes"] > 0 and line["stall_seconds"] >= 0 for line in points)


def change_image(sessions: Sessions) -> None:
    sessions.delete_image("toy", "sks_toy_(0).png")
    sessions.put_image("toy", "sks_toy_(0).png", encoded(picture(9)), 64, 64)


def change_caption(sessions: Sessions) -> None:
    sessions.set_caption("toy", sessions.image_names("toy")[0], "on grass")


@pytest.mark.parametrize(
    ("change", "recipe", "told"),
    [
        (change_caption, {}, "prompt of sks_toy"),
        (None, {"seed": 5}, "recipe seed was 0, is 5"),
        (None, {"unet": {"steps": 4, "learning_rate": 1e-3}}, "recipe unet was"),
        (None, {"batch_size": 2}, "recipe batch_size was 1, is 2"),
    ],
    ids=["caption", "seed", "steps", "batch"],
)
def test_what_changed_since_the_point_is_refused_by_name_unless_accepted(
    order: Order,
    train: Train,
    stopped: Callable[..., None],
    sessions: Sessions,
    change: Callable[[Sessions], None] | None,
    recipe: dict[str, Any],
    told: str,
) -> None:
    stopped(order(use_captions=True), 4)
    if change:
        change(sessions)
    with pytest.raises(ResumePointUnusable, match="cannot go on exactly") as refused:
        train(order(use_captions=True, **recipe), run=RUN)
    assert told in str(refused.value)
    accepted = train(order(use_captions=True, **recipe), run=RUN, accept_inexact=True)
    assert accepted.manifest.metrics["inexact"] is True
    assert told in accepted.messages("warning")


def test_a_changed_image_and_a_new_one_are_both_named(
    order: Order, train: Train, stopped: Callable[..., None], sessions: Sessions
) -> None:
    stopped(order(), 4)
    name = sessions.image_names("toy")[0]
    sessions.delete_image("toy", name)
    sessions.put_image("toy", "another_toy.png", encoded(picture(7)), 64, 64)
    with pytest.raises(ResumePointUnusable) as refused:
        train(order(), run=RUN)
    assert f"image {name} is gone" in str(refused.value)
    assert "image another_toy.png is new" in str(refused.value)


def test_settings_that_change_no_number_may_change(
    order: Order, train: Train, stopped: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(samples, "NUM_STEPS", 2)
    whole = train(order())
    stopped(order(), 4)
    resumed = train(order(sample_prompts=["a toy"], keep_resume_points=5, resume_point_every_steps=1), run=RUN)
    assert resumed.digests() == whole.digests()


@pytest.mark.parametrize("step", [2, 3], ids=["on the way", "at the end"])
def test_samples_that_sigterm_interrupted_are_drawn_by_the_next_attempt(
    order: Order, train: Train, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    monkeypatch.setattr(samples, "NUM_STEPS", 2)
    wanted = order(sample_prompts=["a toy", "sks"], sample_every_steps=1, text_encoder={"steps": 0})
    whole, stop, draw, count = train(wanted), StopSignal(), samples.draw, 0

    def interrupted(*arguments: Any) -> bytes:
        nonlocal count
        count += 1
        if count == 2 * step:
            stop.set()
        return draw(*arguments)

    monkeypatch.setattr(samples, "draw", interrupted)
    with pytest.raises(Stopped):
        train(wanted, run=RUN, stop=stop)
    assert len(pixels(whole.store, RUN)) == 2 * (step - 1)
    assert train(wanted, run=RUN).digests() == whole.digests()
    assert pixels(whole.store, RUN) == pixels(whole.store, "sessions/toy/runs/run-1")


def pixels(store: ObjectStore, run: str) -> dict[str, bytes]:
    """The sample images of a run."""
    prefix = f"{run}/samples/"
    return {found.key.removeprefix(prefix): store.get(found.key) for found in store.list(prefix)}


def test_other_libraries_are_refused(
    order: Order, train: Train, stopped: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    from dreambooth import identity

    stopped(order(), 4)
    real = identity.version
    for library in ("diffusers", "tokenizers", "accelerate"):
        monkeypatch.setattr(identity, "version", lambda name, other=library: "1.0" if name == other else real(name))
        with pytest.raises(ResumePointUnusable, match=rf"library {library} was [\d.]+, is 1\.0"):
            train(order(), run=RUN)


def test_a_point_of_a_program_that_compared_fewer_libraries_is_gone_on_from(
    order: Order, train: Train, stopped: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    from dreambooth import identity

    all_of_them = identity._LIBRARIES
    fewer = tuple(name for name in all_of_them if name not in ("tokenizers", "accelerate"))
    monkeypatch.setattr(identity, "_LIBRARIES", fewer)
    stopped(order(), 4)
    monkeypatch.setattr(identity, "_LIBRARIES", all_of_them)
    resumed = train(order(), run=RUN)
    assert "going on from the resume point at step 1 of stage unet" in resumed.messages("info")
    assert resumed.manifest.metrics["inexact"] is False


def test_another_machine_goes_on_and_is_marked(
    order: Order, train: Train, stopped: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    from dreambooth import identity

    stopped(order(), 4)
    real = identity._machine
    monkeypatch.setattr(identity, "_machine", lambda world: {**real(world), "threads": "64"})
    resumed = train(order(), run=RUN)
    assert "going on inexactly: threads was 1, is 64" in resumed.messages("warning")
    assert resumed.manifest.metrics["inexact"] is True


def test_a_flipped_point_is_told_and_kept_and_the_one_before_it_serves(
    order: Order, train: Train, stopped: Callable[..., None], sessions: Sessions
) -> None:
    wanted = order(resume_point_every_steps=1, keep_resume_points=3)
    whole = train(wanted)
    stopped(wanted, 5)
    newest = max(found.key for found in sessions.store.list(f"{RUN}/resume_points/") if "weights" in found.key)
    content = bytearray(sessions.store.get(newest))
    content[-1] ^= 1
    sessions.store.put(newest, bytes(content))
    resumed = train(wanted, run=RUN)
    assert resumed.digests() == whole.digests()
    assert "sha256" in resumed.messages("warning")
    assert sessions.store.get(newest) == bytes(content)


def test_the_last_good_point_stays_when_the_loss_is_not_finite(
    order: Order, train: Train, sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = loop._predict
    count = iter(range(100))

    def broken(*arguments: Any) -> torch.Tensor:
        prediction = real(*arguments)
        return prediction * float("nan") if next(count) == 3 else prediction

    wanted = order(resume_point_every_steps=1)
    whole = train(wanted)
    monkeypatch.setattr(loop, "_predict", broken)
    with pytest.raises(Diverged, match=r"the loss of unet step 2 is nan, with sks_toy"):
        train(wanted, run=RUN)
    monkeypatch.setattr(loop, "_predict", real)
    resumed = train(wanted, run=RUN)
    assert "going on from the resume point at step 1 of stage unet" in resumed.messages("info")
    assert resumed.digests() == whole.digests()


# Steps: two of the text encoder, then three of the UNet. The last of each is where a stage saves its point in any case.
@pytest.mark.parametrize(
    ("clip", "micro_step", "told"),
    [
        (1.0, 1, "the norm of the gradients of text_encoder step 2 is (inf|nan), with sks_toy"),
        (1.0, 3, "the norm of the gradients of unet step 2 is (inf|nan), with sks_toy"),
        (1.0, 4, "the norm of the gradients of unet step 3 is (inf|nan), with sks_toy"),
        (0.0, 1, r"after text_encoder step 2 \d+ of \d+ weights are not finite, the first is text_encoder\."),
        (0.0, 4, r"after unet step 3 \d+ of \d+ weights are not finite, the first is (unet|text_encoder)\."),
    ],
    ids=["text", "unet", "last", "text-unclipped", "last-unclipped"],
)
def test_gradients_that_overflow_are_told_and_neither_saved_nor_published(
    order: Order,
    train: Train,
    sessions: Sessions,
    monkeypatch: pytest.MonkeyPatch,
    clip: float,
    micro_step: int,
    told: str,
) -> None:
    real = loss.of_batch
    count = iter(range(100))

    def overflowing(*arguments: Any) -> torch.Tensor:
        value = real(*arguments)
        if next(count) == micro_step:
            value.register_hook(lambda gradient: gradient * float("inf"))  # the loss itself stays finite
        return value

    wanted = order(resume_point_every_steps=1, max_gradient_norm=clip)
    whole = train(wanted)
    monkeypatch.setattr(loss, "of_batch", overflowing)
    with pytest.raises(Diverged, match=told):
        train(wanted, run=RUN)
    assert len(json.loads(sessions.store.get(f"{RUN}/writer.json"))["points"]) == min(micro_step, 2)
    assert [found.id for found in Checkpoints(sessions.store).list()] == [whole.checkpoint]
    monkeypatch.setattr(loss, "of_batch", real)
    resumed = train(wanted, run=RUN)
    assert resumed.digests() == whole.digests()


def test_fp16_leaves_an_update_out_whose_gradients_overflow(
    order: Order, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = loss.of_batch
    count = iter(range(100))

    def overflowing(*arguments: Any) -> torch.Tensor:
        value = real(*arguments)
        if next(count) == 3:
            value.register_hook(lambda gradient: gradient * float("inf"))
        return value

    monkeypatch.setattr(loss, "of_batch", overflowing)
    done = train(order(precision="fp16"))
    assert places(done) == [("text_encoder", 1), ("text_encoder", 2), ("unet", 1), ("unet", 2), ("unet", 3)]


def test_curves_have_every_step_once_after_an_interruption(
    order: Order, train: Train, stopped: Callable[..., None], sessions: Sessions, tmp_path: Any
) -> None:
    from dataclasses import replace

    from dreambooth import training
    from dreambooth.curves import Curves
    from dreambooth.lease import Lease
    from dreambooth.records import Records

    from tests.dreambooth.conftest import fields_of
    from tests.dreambooth.torture import curve_of

    store, recipe = sessions.store, order(checkpoint="curves")
    for looks in (4, 1000):
        stop = StopAfter(looks)
        scratch = tmp_path / f"attempt-{looks}"
        scratch.mkdir()
        with Lease.acquire(store, f"{RUN}/", stop) as lease:
            records = Records(store, f"{RUN}/", Curves(scratch / "tensorboard"))
            try:
                training.run(replace(fields_of(store, scratch, recipe), records=records, lease=lease), stop)
            except Stopped:
                pass
            finally:
                records.close(30)
    steps = [(tag, step) for tag, step, _ in curve_of(store, RUN)]
    assert sorted(steps) == [("text_encoder/loss", n) for n in (1, 2)] + [("unet/loss", n) for n in (1, 2, 3)]


def test_only_complete_runs_publish(order: Order, stopped: Callable[..., None], sessions: Sessions) -> None:
    stopped(order(), 4)
    with pytest.raises(NotFound):
        Checkpoints(sessions.store).get("toy-first")
    assert json.loads(sessions.store.get(f"{RUN}/writer.json"))["released"] is True
    assert [line["kind"] for line in read_records(sessions.store)][-1] != "finished"
