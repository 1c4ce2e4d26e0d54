"""What the weights of a model folder are: name, digest, and the files that must be there."""

import hashlib
import json
from pathlib import Path
from typing import Any

from captioner.errors import ModelUnusable

_CHUNK_BYTES = 4 * 1024 * 1024


def read_config(folder: Path, architecture: str) -> dict[str, Any]:
    """config.json of a model folder. Raises ModelUnusable unless it names the architecture."""
    path = folder / "config.json"
    try:
        config: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise ModelUnusable(f"{folder} is no model folder: it has no config.json") from error
    except json.JSONDecodeError as error:
        raise ModelUnusable(f"{path} is damaged: {error}") from error
    found = config.get("architectures") or ["none"]
    if architecture not in found:
        raise ModelUnusable(f"{folder} holds {', '.join(found)}, but {architecture} is needed")
    return config


def digest(folder: Path) -> str:
    """sha256 over the weight files of a folder, in order of their names, hex."""
    total = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")) or sorted(folder.glob("*.bin")):
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                total.update(chunk)
    return total.hexdigest()
