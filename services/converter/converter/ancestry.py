"""Finds the Diffusers ancestor that lends configuration and tokenizer, and says which of its files are wanted.

`plan` calls this when a Diffusers folder is to be written. Why an ancestor: docs/decisions/0003-configuration-from-ancestors.md.
"""

import json
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, Final

from artifacts.checkpoints import Checkpoints, Manifest
from artifacts.errors import NotFound

from converter.errors import AncestorMissing, NotConvertible
from converter.sources import read_json

WEIGHT_COMPONENTS: Final = ("unet", "vae", "text_encoder")
_LENT_COMPONENTS: Final = (*WEIGHT_COMPONENTS, "tokenizer", "scheduler", "feature_extractor")
_WEIGHT_SUFFIXES: Final = (".safetensors", ".bin", ".ckpt", ".pt", ".msgpack", ".h5", ".index.json")
_MAX_GENERATIONS: Final = 64


def nearest_folder(checkpoints: Checkpoints, manifest: Manifest) -> Manifest:
    """The checkpoint itself or its nearest ancestor in Diffusers layout. Raises AncestorMissing."""
    waiting, seen, lost = deque([manifest]), {manifest.id}, []
    while waiting and len(seen) < _MAX_GENERATIONS:
        candidate = waiting.popleft()
        if candidate.format == "diffusers":
            return candidate
        for parent in candidate.parents:
            if parent not in seen:
                seen.add(parent)
                try:
                    waiting.append(checkpoints.get(parent))
                except NotFound:
                    lost.append(parent)
    have = f"its parent {lost[0]!r} is not in the store; publish that one again" if lost else "it has no parent"
    raise AncestorMissing(
        f"checkpoint {manifest.id!r} ({manifest.format})",
        "a Diffusers folder",
        f"configuration and tokenizer come from the Diffusers checkpoint it was made from, but {have}"
        + ("" if lost else "; publish it with the id of a Diffusers checkpoint of its base model as parent"),
    )


def lent_paths(folder: Manifest) -> tuple[str, ...]:
    """Paths of the small files that a new folder takes over: everything of these components but weights."""
    return tuple(
        entry.path
        for entry in folder.files
        if entry.path.partition("/")[0] in _LENT_COMPONENTS
        and "/" in entry.path
        and not entry.path.endswith(_WEIGHT_SUFFIXES)
    )


def model_index(checkpoints: Checkpoints, folder: Manifest) -> bytes:
    """model_index.json without the parts that a single file cannot carry, such as the safety checker."""
    index = read_json(checkpoints, folder, "model_index.json")
    for name, value in index.items():
        if isinstance(value, list) and name not in _LENT_COMPONENTS:
            index[name] = [None, None]
    index["requires_safety_checker"] = False
    return (json.dumps(index, indent=2) + "\n").encode()


def check_fits(
    checkpoints: Checkpoints, folder: Manifest, shapes: Mapping[str, tuple[int, ...]], prediction_type: str, source: str
) -> None:
    """Raise NotConvertible unless the folder's configuration describes tensors of these canonical shapes."""
    for component, path, facts in (
        ("unet", "unet/config.json", _unet_facts(shapes)),
        ("vae", "vae/config.json", _vae_facts(shapes)),
        ("text_encoder", "text_encoder/config.json", _text_facts(shapes)),
        (
            "scheduler",
            "scheduler/scheduler_config.json",
            {"prediction_type": prediction_type} if prediction_type else {},
        ),
    ):
        config = read_json(checkpoints, folder, path)
        for key, value in facts.items():
            said = config.get(key, value)
            if said != value:
                problem = f"its {component} has {key} {value}, but checkpoint {folder.id!r}, which lends the configuration, says {said}"
                raise NotConvertible(f"checkpoint {source!r}", "a Diffusers folder", problem)


def _unet_facts(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    width = shapes["unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight"][1]
    outputs = (shapes[f"unet.down_blocks.{level}.resnets.0.conv1.weight"][0] for level in range(4))
    return {"cross_attention_dim": width, "block_out_channels": list(outputs)}


def _vae_facts(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    outputs = (shapes[f"vae.encoder.down_blocks.{level}.resnets.0.conv1.weight"][0] for level in range(4))
    return {"block_out_channels": list(outputs), "latent_channels": shapes["vae.post_quant_conv.weight"][0]}


def _text_facts(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    vocabulary, width = shapes["text_encoder.text_model.embeddings.token_embedding.weight"]
    return {"vocab_size": vocabulary, "hidden_size": width, "num_hidden_layers": _num_layers(shapes)}


def _num_layers(names: Iterable[str]) -> int:
    return sum(1 for name in names if name.startswith("text_encoder.") and name.endswith(".layer_norm1.weight"))
