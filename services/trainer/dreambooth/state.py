"""Everything that training changes, and its way into a folder and back: what a resume point holds.

    weights.safetensors   "unet.<name>", "text_encoder.<name>": what training has changed so far, fp32
    optimizer.pt          state of the optimizer and of the gradient scaler, as torch writes it, without the tensors
    optimizer.safetensors the tensors; older points have no such file and everything in optimizer.pt
    ema.safetensors       running averages under the names of the weights, if there are any

Nothing else changes: random draws are functions of the step (see `draws`), caches hold what can be computed again, and
the progress of the curves is in the resume point's manifest.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import torch
from safetensors.torch import load_file

from dreambooth import stages, tensor_file
from dreambooth.ema import Averages
from dreambooth.errors import Diverged, ResumePointUnusable
from dreambooth.optimizer import Optimizer
from dreambooth.parts import Parts
from dreambooth.recipe import Recipe
from dreambooth.stages import Stage

WEIGHTS: Final = "weights.safetensors"
OPTIMIZER: Final = "optimizer.pt"
MOMENTS: Final = "optimizer.safetensors"
AVERAGES: Final = "ema.safetensors"


class StageState:
    """The state of one stage between two steps. step: updates done in it."""

    def __init__(self, recipe: Recipe, parts: Parts, stage: Stage, before: "StageState | None" = None) -> None:
        self._parts = parts
        self.stage = stage
        self.step = 0
        # What an earlier stage has trained stays in the resume points of this one.
        self.modules: tuple[str, ...] = tuple(dict.fromkeys((*(before.modules if before else ()), *stage.rates)))
        stages.open_for_training(parts, stage)
        groups = {name: [p for _, p in stages.trainable(parts, name)] for name in stage.rates}
        kept = before.optimizer if before and stage.keeps_optimizer else None
        self.optimizer: Optimizer = kept or Optimizer(recipe, groups, parts.device)
        self.averages: Averages = before.averages if before else Averages(recipe.ema_decay)
        self.averages.follow({name: dict(stages.trainable(parts, name)) for name in stage.rates})

    def advance(self) -> None:
        """One update is done."""
        self.averages.update()
        self.step += 1

    def forget(self, module: str) -> None:
        """What the stage has trained of a module was thrown away."""
        self.modules = tuple(name for name in self.modules if name != module)
        self.averages.forget(module)

    def save(self, folder: Path) -> None:
        """Write the files of a resume point. The numbers are copied: training may go on afterwards.

        Raises Diverged, with nothing written, for weights that are not finite: no run could go on from them.
        """
        weights = self._weights(self.modules)
        if broken := _not_finite(weights):
            raise Diverged(
                f"after {self.stage.name} step {self.step} {len(broken)} of {len(weights)} weights are not finite, "
                f"the first is {broken[0]}; try a lower learning rate, and max_gradient_norm 1 if it is 0"
            )
        self.write_weights(folder)
        moments: dict[str, torch.Tensor] = {}
        rest = tensor_file.take_out(self.optimizer.state_dict(), moments)
        tensor_file.write(moments, folder / MOMENTS)
        with (folder / OPTIMIZER).open("wb") as file:  # given a path, torch does not tell that the disk is full
            torch.save(rest, file)
        if averages := self.averages.tensors():
            tensor_file.write(averages, folder / AVERAGES)

    def write_weights(self, folder: Path) -> None:
        """Write what training has changed of the weights so far, for `load_weights`. The numbers are copied."""
        tensor_file.write(self._weights(self.modules), folder / WEIGHTS)

    def load(self, folder: Path, step: int) -> None:
        """Take over what `save` wrote. Raises ResumePointUnusable if it does not fit this run."""
        self.load_weights(self._parts, self.modules, folder)
        state = torch.load(folder / OPTIMIZER, map_location=self._parts.device, weights_only=True)
        if (folder / MOMENTS).exists():
            state = tensor_file.put_back(state, tensor_file.read(folder / MOMENTS, self._parts.device))
        try:
            self.optimizer.load_state_dict(state)
        except (ValueError, KeyError) as error:
            raise ResumePointUnusable(f"the optimizer's state does not fit: {error}") from error
        averages = load_file(folder / AVERAGES) if (folder / AVERAGES).exists() else {}
        self.averages.load(averages)
        self.step = step

    @staticmethod
    def load_weights(parts: Parts, modules: Iterable[str], folder: Path) -> None:
        """Put saved weights back into their modules."""
        saved = load_file(folder / WEIGHTS)
        for module in modules:
            for name, parameter in stages.trainable(parts, module):
                key = f"{module}.{name}"
                if key not in saved or saved[key].shape != parameter.shape:
                    found = tuple(saved[key].shape) if key in saved else "nothing"
                    raise ResumePointUnusable(f"{key}: expected shape {tuple(parameter.shape)}, found {found}")
                with torch.no_grad():
                    parameter.copy_(saved[key])

    def _weights(self, modules: Iterable[str]) -> Mapping[str, torch.Tensor]:
        return {
            f"{module}.{name}": parameter.detach()
            for module in modules
            for name, parameter in stages.trainable(self._parts, module)
        }


def _not_finite(tensors: Mapping[str, torch.Tensor]) -> list[str]:
    """Names of the tensors that hold a number that is not finite. One pass, no copies, and the device is waited for once."""
    ends = torch.stack([end for tensor in tensors.values() for end in torch.aminmax(tensor)])  # NaN is both ends
    finite = torch.isfinite(ends).view(-1, 2).all(dim=1).tolist()
    return [name for name, good in zip(tensors, finite, strict=True) if not good]
