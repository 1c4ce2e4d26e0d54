"""Whole runs in this process on the micro model: what trains, what does not, and that numbers repeat."""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from artifacts.checkpoints import Checkpoints
from artifacts.sessions import Sessions
from diffusers import DDPMScheduler
from dreambooth import base_model, loop, parts, samples, stages, training
from dreambooth.batches import Images
from dreambooth.dataset import TrainingImage
from dreambooth.errors import Diverged, NotOurs, PictureInvalid, Stopped
from dreambooth.examples import Example, Examples
from dreambooth.exits import StopSignal
from dreambooth.latents import Latents
from dreambooth.lease import Lease
from dreambooth.loop import Material
from dreambooth.losses import LossReader
from dreambooth.recipe import StageSettings, parse
from dreambooth.sources import CounterSource
from dreambooth.stages import Rates, Stage
from dreambooth.state import StageState
from dreambooth.text import FrozenStates
from dreambooth.world import World
from safetensors.torch import load_file, save_file

from tests.dreambooth.conftest import fields_of

Order = Callable[..., dict[str, Any]]
Train = Callable[[Mapping[str, Any]], Any]

UNET = "unet/diffusion_pytorch_model.safetensors"
TEXT = "text_encoder/model.safetensors"


def of_files(folder: Path) -> dict[str, str]:
    files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
    return {f.relative_to(folder).as_posix(): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def test_equal_seeds_give_bit_equal_weights_with_and_without_sampling(
    order: Order, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(samples, "NUM_STEPS", 2)
    plain = train(order())
    sampled = train(order(sample_prompts=["sks toy", "a toy on grass"], sample_every_steps=2))
    other = train(order(seed=1))
    assert plain.losses() == sampled.losses()
    assert plain.digests() == sampled.digests()
    assert plain.losses() != other.losses()
    drawn = [line for line in sampled.records if line["kind"] == "sample"]
    assert [(line["stage"], line["step"]) for line in drawn] == [("unet", 2)] * 2 + [("unet", 3)] * 2
    assert all(sampled.store.get(line["object"]).startswith(b"\x89PNG") for line in drawn)


@pytest.mark.parametrize(
    ("steps", "changed"), [((2, 0), {TEXT}), ((0, 2), {UNET}), ((1, 1), {TEXT, UNET})], ids=["text", "unet", "both"]
)
def test_only_the_trained_parts_change(
    order: Order, train: Train, micro: Path, steps: tuple[int, int], changed: set[str]
) -> None:
    text_encoder, unet = ({"steps": count, "learning_rate": 1e-3} for count in steps)
    outcome = train(order(text_encoder=text_encoder, unet=unet))
    before, after = of_files(micro), outcome.digests()
    assert after.keys() == before.keys()
    assert {path for path in after if after[path] != before[path]} == changed
    stages = [line["stage"] for line in outcome.records if line["kind"] == "progress"]
    assert stages == ["text_encoder"] * steps[0] + ["unet"] * steps[1]


def test_every_step_is_recorded_with_its_rate(order: Order, train: Train) -> None:
    outcome = train(order(text_encoder={"steps": 0}, unet={"steps": 4, "learning_rate": 1e-3}))
    steps = [line for line in outcome.records if line["kind"] == "progress"]
    assert [line["step"] for line in steps] == [1, 2, 3, 4]
    assert [line["learning_rate"] for line in steps] == pytest.approx([1e-3, 7.5e-4, 5e-4, 2.5e-4])
    assert all(line["num_steps"] == 4 and line["images_per_second"] > 0 for line in steps)
    assert steps[-1]["eta_seconds"] == 0
    assert outcome.manifest.metrics["unet"]["loss_first"] == steps[0]["loss"]
    assert outcome.manifest.metrics["unet"]["loss_last"] == steps[-1]["loss"]


def test_the_plan_is_told_before_the_first_step(order: Order, train: Train) -> None:
    outcome = train(order())
    kinds = [line["kind"] for line in outcome.records]
    before = "\n".join(line["text"] for line in outcome.records[: kinds.index("progress")])
    assert "3 images at 64 px, batch 1, fp32" in before
    assert "text encoder: 2 steps from 0.0001, 0.7 passes" in before
    assert "MiB needed" in before
    assert "prompt: sks toy" in before


def test_long_prompts_and_small_images_are_told(order: Order, train: Train) -> None:
    outcome = train(
        order(instance_prompt="a photo of a very small toy", resolution_px=72, unet={"steps": 0}, batch_size=2)
    )
    assert "its end is ignored: 'a photo of a very small toy'" in outcome.messages("warning")
    assert "smaller than 72 px and therefore enlarged: sks_toy (0).png" in outcome.messages("warning")


def test_resolution_must_fit_the_vae(order: Order, train: Train) -> None:
    with pytest.raises(PictureInvalid, match="68 px: base model 'micro' needs a multiple of 8 px"):
        train(order(resolution_px=68))


def test_a_loss_that_is_not_finite_stops_the_run_unpublished(
    order: Order, train: Train, micro: Path, tmp_path: Path, sessions: Sessions
) -> None:
    broken = Path(shutil.copytree(micro, tmp_path / "broken"))
    weights = load_file(broken / UNET)
    save_file(weights | {"conv_in.weight": weights["conv_in.weight"] * 1e38}, broken / UNET, metadata={"format": "pt"})
    with pytest.raises(Diverged, match=r"the loss of unet step 1 is nan, with sks_toy \(\d\)\.png"):
        train(order(base_model_source=str(broken), text_encoder={"steps": 0}))
    assert list(Checkpoints(sessions.store).list()) == []


def test_another_runs_checkpoint_is_left_alone(order: Order, train: Train, sessions: Sessions, tmp_path: Path) -> None:
    first = train(order())
    before = first.manifest
    rival = "sessions/toy/runs/rival"
    store, recipe = sessions.store, order(checkpoint=first.checkpoint, seed=9)
    with Lease.acquire(store, f"{rival}/", StopSignal()) as lease:
        mine = replace(fields_of(store, tmp_path, recipe, rival), lease=lease)
        with pytest.raises(NotOurs, match="already published by sessions/toy/runs/run-1, not by sessions/toy/runs/riv"):
            training.run(mine, StopSignal())
    assert first.manifest == before


def pictures(edge_px: int = 32, size: tuple[int, int] = (32, 32)) -> list[TrainingImage]:
    made = np.random.default_rng(0)
    pixels = [made.integers(0, 256, (*size, 3), dtype=np.uint8) for _ in range(2)]
    return [TrainingImage(f"{i}.png", "", "sks toy", pixels[i], (edge_px, edge_px)) for i in range(2)]


def bench(folder: Path, wanted: dict[str, Any], stage: str = "unet", cached: bool = True) -> Material:
    """A base model and two images, to train on without a store."""
    model = parts.load(base_model.describe("micro", folder), torch.device("cpu"))
    recipe, images = parse(json.dumps(wanted)), Images(pictures(), 2)
    world = World(0, 1, torch.device("cpu"))
    source = CounterSource(model, images, recipe, stage, world)
    examples = Examples(model, recipe, images, Latents(model, images.every, cached=cached))
    return Material(model, recipe, world, source, examples, cached)


def steps(material: Material, name: str, count: int, rate: float, after: Callable[[int], None] = lambda _: None) -> Any:
    """Train one stage; the losses."""
    settings = StageSettings(count, rate)
    stage = Stage(name, count, {name: Rates(settings, 0, count)})
    source = CounterSource(material.parts, Images(pictures(), 2), material.recipe, name, material.world)
    losses: list[float] = []
    state = StageState(material.recipe, material.parts, stage)
    reader = LossReader(lambda facts, loss: losses.append(loss))
    loop.train(stage, replace(material, source=source), state, reader, after, StopSignal())
    stages.close(material.parts)
    return losses


@pytest.fixture
def material(micro: Path, order: Order) -> Material:
    """The micro model and two images, batch 2."""
    return bench(micro, order(batch_size=2))


def weights_of(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: weight.clone() for name, weight in module.state_dict().items()}


@pytest.mark.parametrize("name", ["text_encoder", "unet"])
def test_frozen_parts_have_no_gradients_and_stay_bit_identical(material: Material, name: str) -> None:
    modules = {part: getattr(material.parts, part) for part in ("text_encoder", "unet", "vae")}
    before = {part: weights_of(module) for part, module in modules.items()}
    gradients: set[str] = set()
    for part, module in modules.items():
        for parameter in module.parameters():
            parameter.requires_grad_(True)
            parameter.register_post_accumulate_grad_hook(lambda _, part=part: gradients.add(part))
    steps(material, name, 2, 1e-3)
    assert gradients == {name}
    for part, module in modules.items():
        same = all(torch.equal(before[part][key], weight) for key, weight in module.state_dict().items())
        assert same is (part != name)
        assert all(parameter.grad is None and not parameter.requires_grad for parameter in module.parameters())


def test_optimizer_holds_the_trained_part_alone(material: Material) -> None:
    stage = stages.of(parse(json.dumps(material.recipe.record() | {"base_model_source": "/", "checkpoint": "c"})))[0]
    state = StageState(material.recipe, material.parts, stage)
    held = [id(p) for group in state.optimizer._inner.param_groups for p in group["params"]]
    assert sorted(held) == sorted(id(parameter) for parameter in material.parts.text_encoder.parameters())


def test_loss_falls_when_it_can_be_learnt_by_heart(material: Material) -> None:
    losses = steps(material, "unet", 40, 1e-2)
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])


def test_a_step_can_be_replayed_alone(material: Material) -> None:
    def example(step: int) -> Example:
        return material.examples.make(next(iter(material.source.micro_steps(step))))

    examples = [example(step) for step in range(1, 5)]
    again = example(3)
    assert torch.equal(again.noisy, examples[2].noisy)
    assert torch.equal(again.timesteps, examples[2].timesteps)
    assert not torch.equal(examples[1].noisy, examples[2].noisy)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_trains_fp32_weights(micro: Path, order: Order, precision: str) -> None:
    half = bench(micro, order(precision=precision))
    before = weights_of(half.parts.unet)
    losses = steps(half, "unet", 3, 1e-3)
    assert len(losses) == 3
    assert all(0 < loss < 10 for loss in losses)
    assert {parameter.dtype for parameter in half.parts.unet.parameters()} == {torch.float32}
    assert any(not torch.equal(before[key], weight) for key, weight in half.parts.unet.state_dict().items())


def test_frozen_prompts_are_encoded_in_fp32_also_under_autocast(material: Material) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        inside = FrozenStates(material.parts).of(["sks toy"])
    assert torch.equal(inside, FrozenStates(material.parts).of(["sks toy"]))


def test_dropout_of_a_base_model_draws_nothing(order: Order, micro: Path, tmp_path: Path) -> None:
    leaky = Path(shutil.copytree(micro, tmp_path / "leaky"))
    for part, name in (("text_encoder", "attention_dropout"), ("unet", "dropout")):
        file = leaky / part / "config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), name: 0.5}))

    def losses(folder: Path) -> list[float]:
        fresh = bench(folder, order(batch_size=2))
        return [loss for name in ("text_encoder", "unet") for loss in steps(fresh, name, 2, 1e-3)]

    assert losses(leaky) == losses(micro)


def test_stop_ends_between_two_steps(material: Material) -> None:
    stop, done = StopSignal(), []

    def after(step: int) -> None:
        done.append(step)
        if step == 2:
            stop.set()

    settings = StageSettings(9, 1e-3)
    stage = Stage("unet", 9, {"unet": Rates(settings, 0, 9)})
    state = StageState(material.recipe, material.parts, stage)
    with pytest.raises(Stopped):
        loop.train(stage, material, state, LossReader(lambda facts, loss: None), after, stop)
    assert done == [1, 2]
    assert state.step == 2


def test_velocity_models_train_towards_the_velocity(
    build_micro: Callable[..., Path], tmp_path: Path, order: Order
) -> None:
    folder = build_micro(tmp_path / "velocity", "v_prediction")
    other = bench(folder, order(batch_size=2))
    drawn = next(iter(other.source.micro_steps(1)))
    example = other.examples.make(drawn)
    images = pictures()
    latents = Latents(other.parts, images).sample(drawn.views, drawn.latent)
    schedule = DDPMScheduler.from_pretrained(folder / "scheduler")
    wanted = schedule.get_velocity(latents, drawn.noise, example.timesteps)
    assert torch.equal(example.wanted, wanted)
