"""AdamW as the two-stage flow uses it: betas 0.9 and 0.999, weight decay 0.01, epsilon 1e-8, gradient norm at most 1.

Each stage has a fresh one (Loshchilov and Hutter 2019, arXiv 1711.05101). The learning rate is set before each update
from the step's number, so there is no schedule with a state of its own.
"""

from torch import nn
from torch.optim import AdamW

MAX_GRADIENT_NORM = 1.0


class Optimizer:
    """Updates the weights of one module."""

    def __init__(self, module: nn.Module) -> None:
        self._parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        # Fused: one pass over weights, gradients and moments instead of a dozen; the rate is set by `update`.
        self._adamw = AdamW(self._parameters, lr=0.0, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-2, fused=True)

    def update(self, learning_rate: float) -> None:
        """Clip the gradients, apply one update and drop them."""
        nn.utils.clip_grad_norm_(self._parameters, MAX_GRADIENT_NORM, foreach=True)
        for group in self._adamw.param_groups:
            group["lr"] = learning_rate
        self._adamw.step()
        self._adamw.zero_grad(set_to_none=True)
