"""What the header of a LoRA file tells without reading its weights: metadata, the architecture it was trained for, its hash.

`lora_catalogue.py` lists by it, `reply.py` writes the hash. The format is safetensors: 8 bytes with the length N of the header,
N bytes of JSON, then the numbers (the format's own description, huggingface/safetensors).
"""

import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

HASH_KEY: Final = "sshs_model_hash"
"""The training scripts of kohya write the hash of the file's numbers here."""
SHORT_HASH_DIGITS: Final = 12
FAMILIES: Final[Mapping[int, str]] = {768: "sd15", 1024: "sd21", 2048: "sdxl"}
"""The family by the width of the prompts that cross-attention reads."""
_MAX_HEADER_BYTES: Final = 100 * 1024**2
_LENGTH_BYTES: Final = 8

Shapes = Mapping[str, tuple[int, ...]]


def read_header(path: Path) -> tuple[dict[str, str], dict[str, tuple[int, ...]]]:
    """Metadata, and the shape of each tensor. Raises OSError, and ValueError for a file that is no safetensors."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        if not 0 < length <= _MAX_HEADER_BYTES:
            raise ValueError(f"{path} is no safetensors file: its header would have {length} bytes")
        data = file.read(length)
    try:
        header = json.loads(data)
    except ValueError as error:
        raise ValueError(f"{path} is no safetensors file: {error}") from error
    if not isinstance(header, dict):
        raise ValueError(f"{path} is no safetensors file: its header is no JSON object")
    metadata = header.pop("__metadata__", None)
    metadata = {key: str(value) for key, value in metadata.items()} if isinstance(metadata, dict) else {}
    return metadata, {name: _shape(path, name, entry) for name, entry in header.items()}


def family_of(shapes: Shapes) -> str:
    """The family of models that a LoRA in kohya's layout was trained for, "" if its layers do not tell."""
    if any(name.startswith("lora_te2_") for name in shapes):
        return "sdxl"
    if any(name.startswith("lora_unet_double_blocks_") for name in shapes):
        return "flux"
    # A LoRA of the text encoder alone: SD's reads with the width that its cross-attention has.
    for part in ("attn2_to_k", "attn2_to_v", "_self_attn_q_proj", "_self_attn_v_proj"):
        for name, shape in shapes.items():
            if name.endswith(f"{part}.lora_down.weight") and len(shape) > 1:
                return FAMILIES.get(shape[1], "")
    return ""


@lru_cache(maxsize=256)
def short_hash(path: Path, sha256: str) -> str:
    """The 12 digits that A1111 writes into infotexts: what the metadata says, else sha256 of what follows the header.

    sha256: that of the whole file, so that another file under the same name is read again.
    """
    metadata, _ = read_header(path)
    if known := metadata.get(HASH_KEY):
        return known[:SHORT_HASH_DIGITS]
    with path.open("rb") as file:
        file.seek(_LENGTH_BYTES + int.from_bytes(file.read(_LENGTH_BYTES), "little"))
        return hashlib.file_digest(file, "sha256").hexdigest()[:SHORT_HASH_DIGITS]


def _shape(path: Path, name: str, entry: Any) -> tuple[int, ...]:
    try:
        return tuple(int(side) for side in entry["shape"])
    except (TypeError, KeyError, ValueError) as error:
        raise ValueError(f"{path} is no safetensors file: tensor {name!r} has no shape") from error
