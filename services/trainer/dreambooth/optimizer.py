"""From gradients to updates: the optimizer of a stage, clipping, and the gradient scaler of fp16.

All optimizers are those of well-kept libraries: torch (AdamW, Adafactor), bitsandbytes (8-bit AdamW), prodigyopt.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from dreambooth.recipe import ADAFACTOR, ADAMW, ADAMW_8BIT, PRODIGY, Recipe

_BETAS = (0.9, 0.999)
_EPSILON = 1e-8


class Optimizer:
    """Updates the weights of one stage, one parameter group for each module in the order given.

    gradient_norm: of the last update's gradients before they were clipped, a scalar on the device. None where they are not
    clipped, and in fp16, whose scaler leaves out an update that is not finite.
    """

    def __init__(self, recipe: Recipe, groups: Mapping[str, Sequence[nn.Parameter]], device: torch.device) -> None:
        self.gradient_norm: torch.Tensor | None = None
        self._max_norm = recipe.max_gradient_norm
        self._groups = {name: list(parameters) for name, parameters in groups.items()}
        listed = [{"params": parameters} for parameters in self._groups.values()]
        self._inner = _make(recipe, listed)
        # Only fp16 needs it: bf16 has the exponents of fp32.
        self._scaler = torch.amp.GradScaler(device.type) if recipe.precision == "fp16" else None

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradients of one micro-step."""
        (self._scaler.scale(loss) if self._scaler else loss).backward()  # type: ignore[no-untyped-call]

    def gradients(self) -> list[torch.Tensor]:
        """All gradients there are, in a fixed order."""
        return [p.grad for parameters in self._groups.values() for p in parameters if p.grad is not None]

    def update(self, rates: Mapping[str, float]) -> bool:
        """Clip the gradients, apply one update at these rates and drop them.

        False if fp16 gradients overflowed: nothing was changed but the scale, and the same step is to be made again.
        """
        if self._scaler:
            self._scaler.unscale_(self._inner)
        if self._max_norm:
            trained = [p for name in rates for p in self._groups[name]]
            norm = nn.utils.clip_grad_norm_(trained, self._max_norm, foreach=True)
            self.gradient_norm = norm if self._scaler is None else None
        for group, name in zip(self._inner.param_groups, self._groups, strict=True):
            group["lr"] = rates.get(name, 0.0)
        applied = self._step()
        self.drop_gradients()
        return applied

    def drop_gradients(self) -> None:
        """Forget the gradients of a step that was not finished."""
        self._inner.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        """Everything that an exact continuation needs."""
        return {"optimizer": self._inner.state_dict(), "scaler": self._scaler.state_dict() if self._scaler else None}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a state of the same optimizer over the same weights."""
        self._inner.load_state_dict(state["optimizer"])
        if self._scaler:
            self._scaler.load_state_dict(state["scaler"])

    def _step(self) -> bool:
        if self._scaler is None:
            self._inner.step()
            return True
        before = self._scaler.get_scale()
        self._scaler.step(self._inner)
        self._scaler.update()
        return self._scaler.get_scale() >= before


def _make(recipe: Recipe, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    decay = recipe.weight_decay
    if recipe.optimizer == ADAMW:
        # Fused: one pass over weights, gradients and moments instead of a dozen. The reference's is not.
        fused = not recipe.reference_order
        return torch.optim.AdamW(groups, lr=0.0, betas=_BETAS, eps=_EPSILON, weight_decay=decay, fused=fused or None)
    if recipe.optimizer == ADAMW_8BIT:
        from bitsandbytes.optim.adamw import AdamW8bit

        made: torch.optim.Optimizer = AdamW8bit(groups, lr=0.0, betas=_BETAS, eps=_EPSILON, weight_decay=decay)
        return made
    if recipe.optimizer == PRODIGY:
        from prodigyopt import Prodigy

        # What its authors advise for diffusion models.
        options = {"use_bias_correction": True, "safeguard_warmup": True}
        prodigy: torch.optim.Optimizer = Prodigy(groups, lr=1.0, betas=_BETAS, weight_decay=decay, **options)
        return prodigy
    if recipe.optimizer == ADAFACTOR:
        return torch.optim.Adafactor(groups, lr=0.0, weight_decay=decay)
    raise ValueError(f"optimizer {recipe.optimizer!r} is none of this program's")
