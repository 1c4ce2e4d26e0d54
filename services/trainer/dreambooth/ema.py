"""Running averages of the weights, which a run with `ema_decay` publishes.

The decay grows into its value as (1 + n) / (10 + n) over the updates n, as in diffusers' EMAModel, so that the random
beginning is forgotten.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch


class Averages:
    """Averages of every weight that was ever followed. decay 0: there are none, and every method does nothing."""

    def __init__(self, decay: float) -> None:
        self._decay = decay
        self._num_updates: dict[str, int] = {}
        self._followed: dict[str, torch.Tensor] = {}
        self._trained: set[str] = set()
        self._averages: dict[str, torch.Tensor] = {}

    def follow(self, modules: Mapping[str, Mapping[str, torch.Tensor]]) -> None:
        """From now on these modules train; averages of others stay as they are."""
        if not self._decay:
            return
        self._trained = set(modules)
        for module, weights in modules.items():
            self._num_updates.setdefault(module, 0)
            for name, weight in weights.items():
                self._followed[f"{module}.{name}"] = weight
                self._averages.setdefault(f"{module}.{name}", weight.detach().clone())

    def forget(self, module: str) -> None:
        """The module was thrown away."""
        self._num_updates.pop(module, None)
        for key in [key for key in self._averages if key.startswith(f"{module}.")]:
            del self._averages[key], self._followed[key]

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights after an update."""
        for module in self._trained if self._decay else ():
            self._num_updates[module] += 1
            count = self._num_updates[module] - 1
            decay = min(self._decay, (1 + count) / (10 + count))
            keys = [key for key in self._averages if key.startswith(f"{module}.")]
            averages = [self._averages[key] for key in keys]
            torch._foreach_lerp_(averages, [self._followed[key].detach() for key in keys], 1 - decay)

    def tensors(self) -> Mapping[str, torch.Tensor]:
        """The averages and, as tensors, how many updates each module's have seen."""
        counts = {f"num_updates.{module}": torch.tensor(n) for module, n in self._num_updates.items()}
        return {**self._averages, **counts} if self._decay else {}

    def load(self, saved: Mapping[str, torch.Tensor]) -> None:
        """Take over what `tensors` gave."""
        for key, tensor in saved.items():
            if key.startswith("num_updates."):
                self._num_updates[key.removeprefix("num_updates.")] = int(tensor)
            elif key in self._averages:
                self._averages[key].copy_(tensor)
            else:
                self._averages[key] = tensor.clone()

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the weights are their averages; afterwards they are themselves again."""
        kept = {key: self._followed[key].detach().clone() for key in self._averages}
        self._put(self._averages)
        try:
            yield
        finally:
            self._put(kept)

    @torch.no_grad()
    def _put(self, values: Mapping[str, torch.Tensor]) -> None:
        for key, value in values.items():
            self._followed[key].copy_(value)
