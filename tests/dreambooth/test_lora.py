"""Adapters: first values, what trains, and that diffusers and a merge by hand see in the files what was trained."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from artifacts.checkpoints import Checkpoints, CheckpointWriter
from artifacts.store import ObjectStore
from diffusers import StableDiffusionPipeline
from dreambooth import base_model, lora, lora_layouts, parts, publish, stages
from dreambooth.errors import Diverged, Stopped
from dreambooth.exits import StopSignal
from dreambooth.parts import Parts
from dreambooth.recipe import TEXT_ENCODER, UNET, Lora, parse
from dreambooth.state import WEIGHTS, StageState
from safetensors import safe_open
from safetensors.torch import load as load_bytes
from safetensors.torch import load_file

Order = Callable[..., dict[str, Any]]
Train = Callable[..., Any]
Load = Callable[[], Parts]

CPU = torch.device("cpu")
SETTINGS = Lora(4, 2.5)
WANTED = {"rank": 4, "alpha": 2.5}
RATES = {"text_encoder": {"steps": 2, "learning_rate": 1e-2}, "unet": {"steps": 2, "learning_rate": 1e-2}}
MODULES = (TEXT_ENCODER, UNET)


@pytest.fixture
def load(micro: Path) -> Load:
    return lambda: parts.load(base_model.describe("micro", micro), CPU)


def adapters(model: Parts) -> dict[str, torch.Tensor]:
    return {
        f"{module}.{name}": weight.detach() for module in MODULES for name, weight in stages.trainable(model, module)
    }


def base_weights(model: Parts) -> dict[str, torch.Tensor]:
    """All weights but those of the adapters, under the names of a model without any."""
    return {
        f"{module}.{name.replace('.base_layer', '')}": weight.detach()
        for module in (*MODULES, "vae")
        for name, weight in getattr(model, module).named_parameters()
        if ".lora_" not in name
    }


def seen(unet: Any, text_encoder: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """What a UNet and a text encoder make of fixed inputs."""
    numbers = torch.Generator().manual_seed(3)
    latents = torch.randn(1, 4, 8, 8, generator=numbers)
    context = torch.randn(1, 16, 768, generator=numbers)
    with torch.no_grad():
        predicted = unet(latents, torch.tensor([500]), context, return_dict=False)[0]
        states = text_encoder(torch.arange(16).unsqueeze(0), return_dict=False)[0]
    return predicted, states


def disturb(model: Parts) -> None:
    """Give every adapter other numbers."""
    numbers = torch.Generator().manual_seed(4)
    for weight in adapters(model).values():
        weight.copy_(torch.randn(weight.shape, generator=numbers) * 0.2)


def metadata_of(path: Path) -> dict[str, str]:
    with safe_open(path, "pt") as file:
        return dict(file.metadata())


def begin(store: ObjectStore, checkpoint: str = "toy-lora", **changes: Any) -> CheckpointWriter:
    fields = {
        "format": "safetensors",
        "architecture": "sd15",
        "kind": "lora",
        "precision": "fp32",
        "prediction_type": "epsilon",
        "resolution": 64,
        "base_model": "micro",
    }
    return Checkpoints(store).begin(checkpoint, **{**fields, **changes})


@pytest.fixture
def files(store: ObjectStore, tmp_path: Path) -> Callable[..., Path]:
    """Write adapters and return the folder with the files."""

    def export(model: Parts, modules: tuple[str, ...] = MODULES, **changes: Any) -> Path:
        with begin(store, **changes) as writer:
            lora.write(writer, model, SETTINGS, modules, tmp_path)
            assert [entry.path for entry in writer.files] == [lora_layouts.KOHYA_FILE, lora_layouts.DIFFUSERS_FILE]
        return tmp_path

    return export


def test_every_attention_layer_gets_an_adapter_and_nothing_else_counts_as_one(load: Load) -> None:
    model = load()
    attention = {
        f"{module}.{path}"
        for module, ends in lora_layouts.TARGETS.items()
        for path, _ in model.module(module).named_modules()
        if path.endswith(tuple(f".{end}" for end in ends))
    }
    lora.attach(model, SETTINGS, 1)
    found = adapters(model)
    assert len(attention) == 16 * 2 * 4 + 4  # 16 transformer blocks with two attentions, one layer of the text encoder
    assert set(found) == {f"{path}.lora_{part}.default.weight" for path in attention for part in "AB"}
    assert not any(weight.requires_grad for module in MODULES for weight in model.module(module).parameters())


def test_fresh_adapters_change_nothing(load: Load) -> None:
    model = load()
    before = seen(model.unet, model.text_encoder)
    lora.attach(model, SETTINGS, 1)
    for one, other in zip(before, seen(model.unet, model.text_encoder), strict=True):
        assert torch.equal(one, other)


def test_first_values_come_from_the_seed_alone(load: Load) -> None:
    made = []
    for global_seed, seed in ((1, 7), (2, 7), (1, 8)):
        model = load()
        torch.manual_seed(global_seed)
        before = torch.get_rng_state()
        lora.attach(model, SETTINGS, seed)
        assert torch.equal(torch.get_rng_state(), before)
        made.append(adapters(model))
    assert all(torch.equal(made[0][name], made[1][name]) for name in made[0])
    down = [name for name in made[0] if ".lora_A." in name]
    assert not any(torch.equal(made[0][name], made[2][name]) for name in down)
    assert all(not made[0][name].any() for name in made[0] if ".lora_B." in name)
    numbers = torch.cat([made[0][name].flatten() for name in down])
    assert numbers.dtype == torch.float32
    assert abs(numbers.std().item() * SETTINGS.rank - 1) < 0.02
    assert len({made[0][name].flatten()[0].item() for name in down}) == len(down)  # no two layers share a draw


def test_reset_gives_one_module_its_first_values_again(load: Load) -> None:
    model = load()
    lora.attach(model, SETTINGS, 1)
    first = {name: weight.clone() for name, weight in adapters(model).items()}
    disturb(model)
    lora.reset(model, UNET, 1)
    after = adapters(model)
    assert all(torch.equal(after[name], first[name]) == name.startswith("unet.") for name in first)


@pytest.fixture
def trained(order: Order, train: Train, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> tuple[Any, Parts, Path]:
    """A whole run: its outcome, the model as it was when published, the published files."""
    models = []

    def write(writer: CheckpointWriter, model: Parts, *others: Any) -> None:
        models.append(model)
        lora_write(writer, model, *others)

    lora_write = lora.write
    monkeypatch.setattr(publish.lora, "write", write)
    outcome = train(order(lora=WANTED, **RATES))
    Checkpoints(outcome.store).download(outcome.checkpoint, tmp_path / "published")
    return outcome, models[0], tmp_path / "published"


def test_only_adapters_train_and_the_files_hold_what_was_trained(
    trained: tuple[Any, Parts, Path], micro: Path, load: Load
) -> None:
    outcome, model, folder = trained
    assert (outcome.manifest.kind, outcome.manifest.format) == ("lora", "safetensors")
    assert outcome.digests().keys() == {lora_layouts.KOHYA_FILE, lora_layouts.DIFFUSERS_FILE}
    before, after = base_weights(load()), base_weights(model)
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], weight) for name, weight in before.items())
    # Where a picture has one pixel, attention has no choice and its queries learn nothing; values always do.
    assert all(weight.any() for name, weight in adapters(model).items() if ".to_v." in name or ".v_proj." in name)

    wanted = seen(model.unet, model.text_encoder)
    plain = load()
    for found in (
        with_diffusers(micro, folder / lora_layouts.DIFFUSERS_FILE),
        with_diffusers(micro, folder / lora_layouts.KOHYA_FILE),
        merged_by_hand(load(), folder / lora_layouts.KOHYA_FILE),
    ):
        for theirs, ours, of_base in zip(found, wanted, seen(plain.unet, plain.text_encoder), strict=True):
            torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-5)
            assert (ours - of_base).abs().max() > 1e-3  # or the comparison would see nothing


def with_diffusers(micro: Path, path: Path) -> tuple[torch.Tensor, torch.Tensor]:
    pipeline = StableDiffusionPipeline.from_pretrained(micro, local_files_only=True)
    pipeline.load_lora_weights(path.parent, weight_name=path.name, local_files_only=True)
    return seen(pipeline.unet, pipeline.text_encoder)


def merged_by_hand(model: Parts, path: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """W + alpha / rank * up @ down, layer by layer, as A1111 does."""
    tensors = load_file(path)
    layers = {f"lora_unet_{name.replace('.', '_')}": layer for name, layer in model.unet.named_modules()}
    for name, layer in model.text_encoder.named_modules():
        layers[f"lora_te_text_model_{name.removeprefix('text_model.').replace('.', '_')}"] = layer
    names = {key.split(".", 1)[0] for key in tensors}
    assert len(tensors) == 3 * len(names)
    for name in names:
        down, up, alpha = (tensors[f"{name}.{part}"] for part in ("lora_down.weight", "lora_up.weight", "alpha"))
        assert alpha.shape == ()
        layers[name].weight.add_(alpha / down.shape[0] * (up @ down))
    return seen(model.unet, model.text_encoder)


def test_names_and_metadata_are_the_classic_ones(trained: tuple[Any, Parts, Path]) -> None:
    outcome, _, folder = trained
    theirs = load_file(folder / lora_layouts.DIFFUSERS_FILE)
    assert "text_encoder.text_model.encoder.layers.0.self_attn.q_proj.lora_A.weight" in theirs
    assert "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_out.0.lora_B.weight" in theirs
    described = json.loads(metadata_of(folder / lora_layouts.DIFFUSERS_FILE)["lora_adapter_metadata"])
    assert (described["unet.r"], described["unet.lora_alpha"], described["text_encoder.lora_alpha"]) == (4, 2.5, 2.5)
    kohya = load_file(folder / lora_layouts.KOHYA_FILE)
    assert "lora_te_text_model_encoder_layers_0_self_attn_q_proj.lora_down.weight" in kohya
    assert "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_out_0.alpha" in kohya
    said = metadata_of(folder / lora_layouts.KOHYA_FILE)
    assert (said["ss_network_module"], said["ss_network_dim"], said["ss_network_alpha"]) == (
        "networks.lora",
        "4",
        "2.5",
    )
    assert (said["ss_base_model_version"], said["ss_v2"]) == ("sd_v1", "False")
    assert said["ss_output_name"] == said["modelspec.title"] == outcome.checkpoint
    assert said["modelspec.architecture"] == "stable-diffusion-v1/lora"


def test_a_v_prediction_base_of_the_second_generation_says_so(load: Load, files: Callable[..., Path]) -> None:
    model = load()
    lora.attach(model, SETTINGS, 1)
    folder = files(model, architecture="sd21-768", prediction_type="v_prediction", resolution=768, title="My toy")
    said = metadata_of(folder / lora_layouts.KOHYA_FILE)
    assert (said["ss_base_model_version"], said["ss_v2"], said["ss_output_name"]) == ("sd_v2_v", "True", "toy-lora")
    assert (said["modelspec.architecture"], said["modelspec.prediction_type"]) == (
        "stable-diffusion-v2-768-v/lora",
        "v",
    )
    assert (said["modelspec.title"], said["modelspec.resolution"]) == ("My toy", "768x768")


def test_only_trained_modules_are_exported(order: Order, train: Train, micro: Path, tmp_path: Path) -> None:
    outcome = train(
        order(lora=WANTED, stages="joint_then_discard", text_encoder=RATES["text_encoder"], unet={"steps": 0})
    )
    Checkpoints(outcome.store).download(outcome.checkpoint, tmp_path / "published")
    names = [*load_file(tmp_path / "published" / lora_layouts.DIFFUSERS_FILE)]
    assert len(names) == 8
    assert all(name.startswith("text_encoder.") for name in names)
    assert all(name.startswith("lora_te_") for name in load_file(tmp_path / "published" / lora_layouts.KOHYA_FILE))
    with_diffusers(micro, tmp_path / "published" / lora_layouts.DIFFUSERS_FILE)


def test_files_of_a_half_precision_base_are_half_precision(load: Load, files: Callable[..., Path]) -> None:
    model = load()
    lora.attach(model, SETTINGS, 1)
    disturb(model)
    folder = files(model, precision="fp16")
    kinds = {
        name.endswith(".alpha"): tensor.dtype for name, tensor in load_file(folder / lora_layouts.KOHYA_FILE).items()
    }
    assert kinds == {True: torch.float32, False: torch.float16}
    assert {tensor.dtype for tensor in load_file(folder / lora_layouts.DIFFUSERS_FILE).values()} == {torch.float16}
    files(model, precision="bf16", checkpoint="toy-bf16")
    assert {tensor.dtype for tensor in load_file(folder / lora_layouts.DIFFUSERS_FILE).values()} == {torch.float32}


@pytest.mark.parametrize(("precision", "number"), [("fp32", float("nan")), ("fp16", 1e6)])
def test_numbers_that_are_not_finite_are_not_published(
    load: Load, store: ObjectStore, tmp_path: Path, precision: str, number: float
) -> None:
    model = load()
    lora.attach(model, SETTINGS, 1)
    adapters(model)["unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_v.lora_B.default.weight"][0, 0] = number
    with (
        begin(store, precision=precision) as writer,
        pytest.raises(Diverged, match=r"unet\.mid_block.*to_v is not finite"),
    ):
        lora.write(writer, model, SETTINGS, MODULES, tmp_path)


def updated(state: StageState, times: int) -> None:
    """Updates with gradients that depend on the step and the weight."""
    for _ in range(times):
        for number, weights in enumerate(state.optimizer._groups.values()):
            for weight in weights:
                weight.grad = (weight.detach() + number + state.step).sin()
        assert state.optimizer.update(dict.fromkeys(state.stage.rates, 1e-2))
        state.advance()


def test_a_resume_point_holds_the_adapters_and_gives_them_back(load: Load, order: Order, tmp_path: Path) -> None:
    recipe = parse(json.dumps(order(lora=WANTED, stages="joint_then_freeze", ema_decay=0.9)))

    def fresh() -> tuple[Parts, StageState]:
        model = load()
        assert recipe.lora is not None
        lora.attach(model, recipe.lora, recipe.seed)
        return model, StageState(recipe, model, stages.of(recipe)[0])

    model, state = fresh()
    updated(state, 2)
    state.save(tmp_path)
    updated(state, 1)
    other_model, other = fresh()
    other.load(tmp_path, 2)
    updated(other, 1)
    assert all(".lora_" in name for name in load_file(tmp_path / WEIGHTS))
    found = adapters(other_model)
    assert all(torch.equal(found[name], weight) for name, weight in adapters(model).items())
    assert all(torch.equal(other.averages.tensors()[name], mean) for name, mean in state.averages.tensors().items())


class _StopAt(StopSignal):
    """Set when it is asked for the n-th time: once for each micro-step."""

    def __init__(self, time: int) -> None:
        super().__init__()
        self._left = time

    def is_set(self) -> bool:
        self._left -= 1
        return self._left < 0 or super().is_set()


@pytest.mark.parametrize("mode", ["text_encoder_only_first", "joint_then_discard", "joint_then_freeze"])
def test_a_stopped_run_goes_on_to_equal_files(order: Order, train: Train, mode: str) -> None:
    wanted: Mapping[str, Any] = order(lora=WANTED, stages=mode, **RATES)
    whole = train(wanted, run="sessions/toy/runs/whole")
    run = "sessions/toy/runs/stopped"
    for num_steps in (1, 2):  # in the first stage, then in the second one
        with pytest.raises(Stopped):
            train(wanted, run=run, stop=_StopAt(num_steps))
    again = train(wanted, run=run)
    assert again.losses() == whole.losses()
    numbers = tensors_of(again)
    assert all(torch.equal(numbers[name], tensor) for name, tensor in tensors_of(whole).items())


def tensors_of(outcome: Any) -> dict[str, torch.Tensor]:
    return load_bytes(Checkpoints(outcome.store).read_file(outcome.checkpoint, lora_layouts.DIFFUSERS_FILE))
