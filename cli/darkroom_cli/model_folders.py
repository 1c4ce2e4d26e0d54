"""Folders of models: which there are below a folder, what kind each is, and copying one."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from darkroom_cli.output import UsageProblem

Kind = Literal["base model", "control net", "other"]
# A model is there once this file is; so it is always written last. A base model has both.
_INDEX, _CONFIG = "model_index.json", "config.json"


@dataclass(frozen=True)
class ModelFolder:
    """One model in the layout of diffusers or transformers. files: relative paths, the one that makes it a model last."""

    path: Path
    kind: Kind
    files: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def num_bytes(self) -> int:
        """What its files take."""
        return sum((self.path / file).stat().st_size for file in self.files)


def model_folders(parent: Path) -> list[ModelFolder]:
    """The models directly below a folder, by name. Raises UsageProblem if there is none."""
    found = [_describe(path) for path in sorted(parent.iterdir()) if _marker(path)]
    if not found:
        raise UsageProblem(f"{parent} holds no folder with a {_INDEX} or a {_CONFIG}; name a folder of model folders")
    return found


def copy_model(model: ModelFolder, target: Path) -> bool:
    """Copy a model below `target`, all or nothing; False if it is there already.

    Raises UsageProblem if something else has its name, and OSError.
    """
    new, final = target / f".{model.name}.new", target / model.name
    if final.exists():
        if _sizes(final) != _sizes(model.path):
            raise UsageProblem(
                f"{final} is there with other files than {model.path}; remove it or choose another folder"
            )
        return False
    if new.exists():  # a copy that was interrupted
        shutil.rmtree(new)
    shutil.copytree(model.path, new, copy_function=shutil.copyfile)
    new.rename(final)
    return True


def _describe(path: Path) -> ModelFolder:
    marker = _marker(path)
    files = sorted(str(file.relative_to(path)) for file in path.rglob("*") if file.is_file())
    files.remove(marker)
    return ModelFolder(path, _kind(path, marker), (*files, marker))


def _kind(path: Path, marker: str) -> Kind:
    if marker == _INDEX:
        return "base model"
    try:
        config = json.loads((path / marker).read_text())
        is_control_net = config.get("_class_name") == "ControlNetModel"
    except (ValueError, AttributeError):
        raise UsageProblem(f"{path / marker} is no JSON object; restore it from the model's source") from None
    return "control net" if is_control_net else "other"


def _marker(path: Path) -> str:
    """The file whose presence makes a folder a model; empty if it is none."""
    return next((name for name in (_INDEX, _CONFIG) if (path / name).is_file()), "")


def _sizes(folder: Path) -> dict[str, int]:
    return {str(file.relative_to(folder)): file.stat().st_size for file in folder.rglob("*") if file.is_file()}
