"""Reads the configurations (never the weights) of models and control nets in local folders."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from webui_gateway.architectures import ALL_PRECISIONS, BaseModel, Width

# Cross-attention dimension tells the families of Stable Diffusion apart.
_FAMILIES = {768: "sd15", 1024: "sd21", 2048: "sdxl"}


def base_models(folders: Sequence[Path]) -> Iterator[BaseModel]:
    """An entry for each diffusers pipeline among the sub-folders; other sub-folders are left alone."""
    for folder in _children(folders, "model_index.json"):
        unet, vae = _read(folder / "unet" / "config.json"), _read(folder / "vae" / "config.json")
        scheduler = _read(folder / "scheduler" / "scheduler_config.json")
        family = _FAMILIES.get(_cross_attention(unet))
        if family is None or "sample_size" not in unet:
            continue
        scale = 2 ** (len(vae.get("block_out_channels", [0] * 4)) - 1)
        native_px = int(unet["sample_size"]) * scale
        prediction_type = str(scheduler.get("prediction_type", "epsilon"))
        architecture = family
        if family == "sd21":
            architecture = "sd21-768" if prediction_type == "v_prediction" else "sd21-512"
        yield BaseModel(
            folder.name, architecture, prediction_type, native_px, precisions=ALL_PRECISIONS, width=_width(unet)
        )


def control_nets(folders: Sequence[Path]) -> Iterator[tuple[str, str, Width]]:
    """(name, architecture, width) of each ControlNetModel among the sub-folders."""
    for folder in _children(folders, "config.json"):
        config = _read(folder / "config.json")
        family = _FAMILIES.get(_cross_attention(config))
        if config.get("_class_name") == "ControlNetModel" and family is not None:
            yield folder.name, family, _width(config)


def _children(folders: Sequence[Path], marker: str) -> Iterator[Path]:
    for folder in folders:
        if folder.is_dir():
            yield from sorted(child for child in folder.iterdir() if (child / marker).is_file())


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    config: dict[str, Any] = json.loads(path.read_text())
    return config


def _cross_attention(config: dict[str, Any]) -> int:
    found = config.get("cross_attention_dim", 0)
    return int(found[0] if isinstance(found, list) else found)


def _width(config: dict[str, Any]) -> Width:
    return Width(_cross_attention(config), tuple(config.get("block_out_channels", ())))
