"""Which diffusers folder lends a single file its configuration, scheduler and tokenizer; `pipelines.py` asks.

Shapes alone do not tell: SD2.1 for 512 and for 768 pixels have the same ones, but one predicts noise and the other v, and
each draws nothing but noise with the scheduler of the other.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from safetensors import safe_open

from webui_engine.catalogue import Model
from webui_engine.errors import ModelBroken

# One tensor name of each part tells the shapes apart that a configuration decides.
_FIRST_CONV: Final = "model.diffusion_model.input_blocks.0.0.weight"
_FIRST_CROSS_ATTENTION: Final = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
_TOKENS: Final = "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight"
_NAMES: Final = (_FIRST_CONV, _FIRST_CROSS_ATTENTION, _TOKENS)
_V_MARKER: Final = "v_pred"  # an empty tensor by which A1111 and ComfyUI know v-prediction
_MODELSPEC: Final = {"v": "v_prediction", "v_prediction": "v_prediction", "epsilon": "epsilon", "eps": "epsilon"}

Shapes = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class _Header:
    """Shapes of `_NAMES`, and what the file says that it predicts: "epsilon", "v_prediction" or ""."""

    shapes: Shapes
    prediction_type: str


def find_base(model: Model, folders: Sequence[Model]) -> Model:
    """The diffusers folder whose configuration and tokenizer belong to a single file.

    It has the file's shapes, and its prediction type where the manifest or the file says one. The base model that the
    manifest names wins, else the first one. Raises ModelBroken, naming what there is, if none fits, and if those that
    fit differ in their prediction type.
    """
    header = _read_header(model.path)
    matching = [folder for folder in folders if _expected_shapes(folder.path) == header.shapes]
    if not matching:
        names = ", ".join(folder.name for folder in folders) or "none"
        raise ModelBroken(
            model.title,
            f"no diffusers folder of the same shapes gives its configuration and tokenizer (there are: {names}); "
            "put its base model into a folder of DARKROOM_MODELS",
        )
    named = model.manifest.base_model.lower() if model.manifest else ""
    candidates = [folder for folder in matching if named in folder.aliases] or matching
    predicts = {folder: _prediction_type(folder.path) for folder in candidates}
    found = ", ".join(f"{folder.name} ({kind})" for folder, kind in predicts.items())
    said = (model.manifest.prediction_type if model.manifest else "") or header.prediction_type
    if not said and len(set(predicts.values())) > 1:
        raise ModelBroken(
            model.title,
            f"it does not say what it predicts, and diffusers folders of its shapes differ in that: {found}; publish it "
            "with its prediction_type and base_model, or leave only its base model in DARKROOM_MODELS",
        )
    fitting = [folder for folder, kind in predicts.items() if kind == said or not said]
    if not fitting:
        base = f", {model.manifest.base_model}," if model.manifest and model.manifest.base_model else ""
        raise ModelBroken(
            model.title,
            f"its prediction type is {said}, but that of the diffusers folder of its shapes is another one: {found}; "
            f"put its base model{base} with prediction type {said} into a folder of DARKROOM_MODELS",
        )
    return fitting[0]


def _read_header(path: Path) -> _Header:
    """Raises KeyError, or SafetensorError, for a file that is no SD checkpoint."""
    if path.suffix == ".safetensors":
        with safe_open(str(path), framework="pt") as file:
            shapes = tuple(tuple(file.get_slice(name).get_shape()) for name in _NAMES)
            said = _MODELSPEC.get((file.metadata() or {}).get("modelspec.prediction_type", "").lower(), "")
            return _Header(shapes, said or ("v_prediction" if _V_MARKER in file.keys() else ""))  # noqa: SIM118
    state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    state = state.get("state_dict", state)
    return _Header(tuple(tuple(state[name].shape) for name in _NAMES), "v_prediction" if _V_MARKER in state else "")


def _expected_shapes(folder: Path) -> Shapes:
    unet = json.loads((folder / "unet" / "config.json").read_text())
    text = json.loads((folder / "text_encoder" / "config.json").read_text())
    first = unet["block_out_channels"][0]
    kernel = unet.get("conv_in_kernel", 3)
    return (
        (first, unet["in_channels"], kernel, kernel),
        (first, unet["cross_attention_dim"]),
        (text["vocab_size"], text["hidden_size"]),
    )


def _prediction_type(folder: Path) -> str:
    """As Diffusers reads it: a scheduler that says nothing predicts epsilon."""
    scheduler = json.loads((folder / "scheduler" / "scheduler_config.json").read_text())
    return str(scheduler.get("prediction_type", "epsilon"))
