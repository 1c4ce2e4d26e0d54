import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from artifacts.sessions import Sessions
from diffusers import AutoencoderKL, UNet2DConditionModel
from dreambooth import (
    base_model,
    case,
    cheaper,
    device_peaks,
    dry_run,
    lora,
    memory,
    micro_step,
    parts,
    plan,
    stages,
    text,
)
from dreambooth.case import Case
from dreambooth.errors import MemoryTooSmall
from dreambooth.micro_step import MicroStep
from dreambooth.optimizer import Optimizer
from dreambooth.order import Order
from dreambooth.parts import Parts
from dreambooth.recipe import OPTIMIZERS, Lora, PriorPreservation, Recipe, StageSettings
from dreambooth.stages import Stage
from dreambooth.world import World
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from tests.dreambooth.conftest import encoded, fields_of, picture

CPU = torch.device("cpu")
ONLY_TEXT = Recipe("micro", "/", "c", unet=StageSettings(0, 1e-6))
ONLY_UNET = Recipe("micro", "/", "c", text_encoder=StageSettings(0, 1e-6))
JOINT = Recipe("micro", "/", "c", stages="joint_then_discard")
GIB = 2**30


@pytest.fixture
def model(micro: Path) -> Parts:
    return parts.load(base_model.describe("micro", micro), CPU)


@pytest.fixture(scope="module")
def sd15(micro: Path) -> Parts:
    """SD1.5's modules without content: every size is the real one."""
    small = parts.load(base_model.describe("micro", micro), CPU)
    with torch.device("meta"):
        clip = CLIPTextConfig(
            vocab_size=49408, hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12
        )
        vae = AutoencoderKL(
            block_out_channels=(128, 256, 512, 512),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
            sample_size=512,
        )
        unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768)
        made = replace(small, unet=unet, vae=vae, text_encoder=CLIPTextModel(clip))
    made.tokenizer.model_max_length = 77
    return made


@pytest.fixture
def placed(sessions: Sessions, tmp_path: Path, order: Callable[..., dict[str, Any]]) -> Callable[..., Order]:
    """An order without records; arguments replace fields of the recipe."""

    def make(**changes: Any) -> Order:
        found: Order = fields_of(sessions.store, tmp_path, order(**changes))
        return found

    return make


def case_of(recipe: Recipe, model: Parts, edge_px: int = 512, num_processes: int = 1) -> Case:
    names = [stage.name for stage in stages.of(recipe)]
    cuts = dict.fromkeys(names, (edge_px, edge_px))
    return Case(recipe, model, cuts, dict.fromkeys(names, 0), 0, 0, 0, num_processes)


def needed(recipe: Recipe, model: Parts, edge_px: int = 512) -> float:
    """Predicted GiB."""
    return memory.predict(case_of(recipe, model, edge_px)).num_bytes / GIB


def allocated(recipe: Recipe, model: Parts, stage: Stage, cut: tuple[int, int]) -> int:
    """Peak of what torch really allocates in a micro-step, beside weights, inputs and earlier gradients."""
    stages.open_for_training(model, stage)
    inputs = micro_step.zeros(recipe, model, stage, cut, CPU)
    step = MicroStep(model, recipe, lambda: micro_step.autocast(recipe.precision, CPU))
    if recipe.gradient_checkpointing:
        model.unet.enable_gradient_checkpointing()
    for _ in range(recipe.gradient_accumulation_steps - 1):
        step(inputs)
    with torch.profiler.profile(profile_memory=True) as profile:
        step(inputs)
    kineto = profile.profiler.kineto_results
    live = peak = 0
    for event in sorted(kineto.events(), key=lambda event: event.start_ns()):
        live += event.nbytes() if event.name() == "[memory]" else 0
        peak = max(peak, live)
    return peak


@pytest.mark.parametrize(
    "recipe",
    [
        replace(ONLY_UNET, batch_size=4),
        replace(ONLY_TEXT, batch_size=4),
        replace(JOINT, batch_size=16, gradient_checkpointing=True),
        replace(ONLY_UNET, batch_size=4, precision="bf16"),
        replace(ONLY_UNET, batch_size=4, precision="fp16", gradient_checkpointing=True),
        replace(ONLY_UNET, batch_size=2, gradient_accumulation_steps=2),
        replace(JOINT, lora=Lora(4, 4.0), batch_size=2),
    ],
    ids=lambda recipe: "-".join(
        str(part)
        for part in (
            len(stages.of(recipe)[0].rates),
            recipe.batch_size,
            recipe.precision,
            recipe.gradient_checkpointing,
            recipe.gradient_accumulation_steps,
            bool(recipe.lora),
        )
    ),
)
def test_what_is_counted_without_arithmetic_is_what_torch_allocates(recipe: Recipe, model: Parts) -> None:
    if recipe.lora:
        lora.attach(model, recipe.lora, 0)
    stage, cut = stages.of(recipe)[0], (64, 64)
    accumulates = recipe.gradient_accumulation_steps > 1
    counted = dry_run.micro_step_of(recipe, model, stage, cut, "cpu", accumulates=accumulates)
    assert not any(weight.grad is not None or weight.is_meta for weight in model.unet.parameters())
    # Python holds the arguments of an operation a little longer than C++ does.
    assert 0.95 < counted.peak_bytes / allocated(recipe, model, stage, cut) < 1.25


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizers_state_has_the_predicted_size(name: str) -> None:
    weights = [nn.Parameter(torch.randn(shape)) for shape in ((64, 128), (5,), (32, 16, 3, 3), (4096,))]
    optimizer = Optimizer(replace(ONLY_UNET, optimizer=name), {"unet": weights}, CPU)
    for _ in range(2):
        for weight in weights:
            weight.grad = torch.ones_like(weight)
        optimizer.update({"unet": 1e-3})
    kept = sum(_sizes(optimizer.state_dict()["optimizer"]["state"]))
    assert kept == sum(memory.optimizer_bytes(name, weight.shape) for weight in weights)


def test_sd15_needs_what_is_known_of_it(sd15: Parts) -> None:
    full = replace(ONLY_UNET, precision="bf16")
    weights = memory.loaded_bytes(sd15) / GIB
    trained = sum(weight.numel() for weight in sd15.unet.parameters()) * 4 / GIB
    # weights, gradients, two moments, and some activations: 15 to 20 GB, as everybody's trainer needs
    assert weights + 3 * trained < needed(full, sd15) < weights + 3 * trained + 5
    assert needed(replace(full, optimizer="adamw_8bit"), sd15) < needed(full, sd15) - 1.4 * trained
    assert needed(replace(full, ema_decay=0.99), sd15) == pytest.approx(needed(full, sd15) + trained, rel=0.01)
    assert needed(replace(full, lora=Lora(8, 8.0), batch_size=1), sd15) > weights
    large = replace(full, batch_size=8)
    assert needed(replace(large, gradient_checkpointing=True), sd15) < needed(large, sd15) - 4
    assert needed(replace(large, batch_size=16), sd15) > needed(large, sd15) + 4
    assert needed(full, sd15, 768) > needed(full, sd15) + 0.4
    prior = PriorPreservation("a toy")
    with_class = replace(large, batch_size=4, prior_preservation=prior)
    assert needed(with_class, sd15) == pytest.approx(needed(large, sd15), rel=0.01)
    # a frozen UNet has no gradients and no optimizer, but the activations through which gradients pass
    assert needed(full, sd15) > needed(replace(ONLY_TEXT, precision="bf16"), sd15) > weights + 1


def test_the_arithmetic_of_sd15_is_the_published_one(sd15: Parts) -> None:
    def tflop(recipe: Recipe) -> float:
        return sum(memory.predict(case_of(recipe, sd15)).micro_flops.values()) / 1e12

    # FlopCounterMode over diffusers' own model: forward 0.803, times three; 1.709 where gradients only pass through.
    assert tflop(ONLY_UNET) == pytest.approx(2.407, rel=0.01)
    assert tflop(ONLY_TEXT) == pytest.approx(1.709, rel=0.02)
    assert tflop(replace(ONLY_UNET, batch_size=2)) == pytest.approx(2 * 2.407, rel=0.01)


def test_the_first_cheaper_setting_that_fits_is_proposed(sd15: Parts) -> None:
    ordered = replace(ONLY_UNET, precision="bf16", batch_size=4)

    def proposed(recipe: Recipe, available: float) -> str:
        found = cheaper.find(case_of(recipe, sd15), int(available * GIB))
        assert found is None or found.num_bytes <= available * GIB
        return found.changes if found else "nothing"

    checkpointed = needed(replace(ordered, gradient_checkpointing=True), sd15)
    assert proposed(ordered, checkpointed + 0.1) == "gradient_checkpointing"
    assert proposed(ordered, checkpointed - 0.1) == "optimizer adamw_8bit"
    both = needed(replace(ordered, gradient_checkpointing=True, optimizer="adamw_8bit"), sd15)
    assert proposed(ordered, both + 0.01) == "gradient_checkpointing and optimizer adamw_8bit"
    assert proposed(replace(ordered, optimizer="prodigy"), 8).endswith("lora (rank 16)")
    assert proposed(ordered, 6).endswith("lora (rank 16)")
    assert proposed(replace(ordered, reference_order=True), 6) == "nothing"
    assert proposed(ordered, 3) == "nothing"


def test_a_smaller_batch_keeps_the_images_of_an_update(sd15: Parts) -> None:
    ordered = replace(ONLY_UNET, batch_size=6, gradient_accumulation_steps=2, gradient_checkpointing=True)
    ordered = replace(ordered, optimizer="adafactor", precision="bf16")
    third = needed(replace(ordered, batch_size=2, gradient_accumulation_steps=6), sd15)
    found = cheaper.find(case_of(ordered, sd15), int(third * GIB) + 1)
    assert found is not None
    assert found.changes == "batch_size 2 with gradient_accumulation_steps 6"
    assert found.num_bytes == int(third * GIB)


def test_a_training_that_cannot_fit_is_refused_with_what_would(placed: Callable[..., Order], model: Parts) -> None:
    wanted = placed(batch_size=64, text_encoder={"steps": 0})
    predicted = plan.make(wanted, model, 2**40).memory_bytes
    with pytest.raises(
        MemoryTooSmall, match=r"needs about .* MiB \(training the .*\), and .* MiB are there on cpu: "
    ) as e:
        plan.make(wanted, model, int(predicted * 0.85))
    assert "gradient_checkpointing" in str(e.value) or "batch_size" in str(e.value)
    with pytest.raises(MemoryTooSmall, match="no setting of the recipe would fit"):
        plan.make(wanted, model, 2**20)


def test_a_hair_too_little_is_refused_on_a_cpu_which_would_kill_it(placed: Callable[..., Order], model: Parts) -> None:
    predicted = plan.make(placed(), model, 2**40)
    assert not predicted.is_tight
    with pytest.raises(MemoryTooSmall, match="optimizer adamw_8bit needs about"):
        plan.make(placed(), model, predicted.memory_bytes - 1)
    assert not plan.make(placed(), model, predicted.memory_bytes).is_tight


def test_a_hair_too_little_is_a_warning_on_a_card(placed: Callable[..., Order], model: Parts) -> None:
    assert [plan.fits("cuda", 100, there) for there in (89, 90, 100)] == [False, True, True]
    assert [plan.fits("cpu", 100, there) for there in (90, 99, 100)] == [False, False, True]
    predicted = plan.make(placed(), model, 2**40)
    tight = replace(predicted, available_bytes=int(predicted.memory_bytes * 0.95))
    assert tight.is_tight
    told = _Told()
    plan.announce(tight, replace(placed(), records=told), model)
    assert re.search(r"the memory may not be enough: optimizer adamw_8bit needs about \d+ MiB; a lower", told.warnings)


def test_all_processes_refuse_if_one_does(placed: Callable[..., Order], model: Parts) -> None:
    class Others(World):
        def any(self, flag: bool) -> bool:
            return True

    with pytest.raises(MemoryTooSmall, match="another process of this run has too little"):
        plan.make(replace(placed(), world=Others(0, 2, CPU)), model, 2**40)


def test_a_rehearsal_leaves_nothing_behind(
    placed: Callable[..., Order], model: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = placed(precision="bf16", gradient_checkpointing=True, optimizer="prodigy", unet={"steps": 30})
    weights = {name: weight.clone() for name, weight in model.unet.state_dict().items()}
    generator = torch.get_rng_state()
    intended = plan.make(wanted, model, 2**40)
    assert intended.seconds is not None
    assert "the steps alone take about" in intended.sentences[-1]
    assert torch.equal(generator, torch.get_rng_state())
    assert all(torch.equal(weights[name], weight) for name, weight in model.unet.state_dict().items())
    for module in (model.unet, model.text_encoder):
        assert all(weight.grad is None and not weight.requires_grad for weight in module.parameters())
    assert not model.unet.is_gradient_checkpointing


def test_a_rehearsal_does_not_change_the_training(
    order: Callable[..., dict[str, Any]], train: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    without = train(order())
    monkeypatch.setattr(plan, "_MIN_STEPS", 1)
    assert train(order()).digests() == without.digests()


def test_the_plan_says_what_an_update_is(placed: Callable[..., Order], model: Parts) -> None:
    wanted = placed(
        batch_size=2,
        gradient_accumulation_steps=3,
        resume_point_every_steps=2,
        prior_preservation={"class_prompt": "a toy", "num_class_images": 5},
    )
    said = "\n".join(plan.make(wanted, model, 2**40).sentences)
    assert "3 images and 5 class images at 64 px, batch 2, fp32 on cpu" in said
    assert "6 images an update (2 x 3 micro-steps x 1 process); optimizer adamw, stages text_encoder_only_first" in said
    assert "text encoder: 2 steps from 0.0001, 4.0 passes over the images at 64 px" in said
    assert "resume points: about 3 (every 2 steps, every 5 minutes, at the end of a stage)" in said


def test_a_disk_without_room_for_resume_points_is_told(
    placed: Callable[..., Order], model: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted, told = placed(), _Told()
    intended = plan.make(wanted, model, 2**40)
    plan.announce(intended, replace(wanted, records=told), model)
    assert told.warnings == ""
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    plan.announce(intended, replace(wanted, records=told), model)
    assert "resume points are staged in" in told.warnings


def test_the_largest_pictures_and_all_caches_count(
    placed: Callable[..., Order], model: Parts, sessions: Sessions
) -> None:
    sessions.put_image("toy", "wide.png", encoded(picture(1, (128, 64))), 128, 64)
    found = case.of(placed(crop="buckets", flip=True, text_encoder={"steps": 1, "resolution_px": 128}), model)
    assert found.cuts == {"text_encoder": (128, 128), "unet": (64, 64)}
    latents = 2 * (3 * 4 * 8 * 8 + 4 * 6 * 10) * 2 * 4  # three squares and a wide one, mirrored or not, two moments
    assert found.cache_bytes["unet"] == latents + 3 * 16 * 768 * 4  # and the states of two prompts and the empty one
    assert found.cache_bytes["text_encoder"] > latents


def test_states_of_many_prompts_count_up_to_the_size_of_their_cache(
    placed: Callable[..., Order], model: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = case.of(placed(crop="center"), model).cache_bytes["unet"]
    monkeypatch.setattr(text, "MAX_CACHE_BYTES", 1000)
    assert case.of(placed(crop="center"), model).cache_bytes["unet"] == free - 2 * 16 * 768 * 4 + 1000


def test_many_prompts_are_named_in_a_few_words(placed: Callable[..., Order], model: Parts, sessions: Sessions) -> None:
    for number in range(30):
        sessions.put_image("toy", f"sks_toy (1{number:02}).png", encoded(picture(number)), 64, 64)
        sessions.set_caption("toy", f"sks_toy (1{number:02}).png", f"no. {number}")
    wanted, told = placed(use_captions=True), _Told()
    plan.announce(plan.make(wanted, model, 2**40), replace(wanted, records=told), model)
    lines = told.infos.splitlines()
    assert sum(line.startswith("prompt: ") for line in lines) == 20
    assert lines[-1] == "and 11 more prompts"


def test_gpus_are_known_by_whole_words() -> None:
    assert device_peaks.flops_per_second("NVIDIA H100 80GB HBM3", "bf16") == 989e12
    assert device_peaks.flops_per_second("NVIDIA H100 PCIe", "bf16") == 756e12
    assert device_peaks.flops_per_second("NVIDIA A100-SXM4-80GB", "fp32") == 156e12
    assert device_peaks.flops_per_second("NVIDIA A10", "fp16") == 125e12
    assert device_peaks.flops_per_second("NVIDIA L40S", "bf16") == 362e12
    assert device_peaks.flops_per_second("Tesla T4", "bf16") == 0
    assert device_peaks.flops_per_second("NVIDIA GeForce RTX 4090", "bf16") == 165.2e12
    assert device_peaks.flops_per_second("", "bf16") == device_peaks.flops_per_second("A1000", "fp16") == 0


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.2, "1 s"), (59.4, "59 s"), (200, "3 min 20 s"), (120, "2 min"), (7500, "2 h 5 min"), (3600, "1 h")],
)
def test_lengths_of_time_are_said_in_two_units(seconds: float, said: str) -> None:
    assert plan.spoken(seconds) == said


def _sizes(state: Mapping[str, Any]) -> Iterator[int]:
    """Bytes of all tensors that belong to one weight."""
    for key, value in state.items():
        if isinstance(value, Mapping):
            yield from _sizes(value)
        elif isinstance(value, torch.Tensor) and key != "step" and "qmap" not in str(key):
            yield value.nbytes


class _Told:
    """Takes the place of records: what was said."""

    def __init__(self) -> None:
        self.warnings = ""
        self.infos = ""

    def message(self, text: str, level: str = "info") -> None:
        if level == "warning":
            self.warnings += text + "\n"
        else:
            self.infos += text + "\n"


def test_averaging_between_processes_costs_a_message_and_not_all_gradients(sd15: Parts) -> None:
    one, two = (
        memory.predict(
            case_of(replace(ONLY_UNET, optimizer="adamw_8bit", precision="bf16"), sd15, num_processes=number)
        ).num_bytes
        for number in (1, 2)
    )
    assert one <= two < one + 2**30
