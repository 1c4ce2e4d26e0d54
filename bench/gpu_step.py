"""One training step as `train_gpu` times it: the trainer's arithmetic, with the switches that the trainer could throw.

fp32 weights under bf16 autocast, cached latents and text states, fused AdamW, clipping. Random numbers are drawn on the
host and sent over, as the trainer does it: so nothing random is captured in a CUDA graph, and a replay cannot repeat or
skip a draw. The loss stays on the device; nothing in a step makes the host wait for it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle

import torch
from dreambooth import loss
from torch import nn

from bench.gpu_models import CONTEXT_WIDTH, Size

_HOST_EXAMPLES = 8
_WARM_UP_BEFORE_CAPTURE = 3  # what lazily made workspaces and the optimizer's state need, as torch's manual says
_NUM_TIMESTEPS = 1000
_RATE = 2e-6


@dataclass(frozen=True)
class Switches:
    """compiled: the UNet goes through torch.compile. graph: the whole step is one CUDA graph."""

    compiled: bool = False
    channels_last: bool = False
    graph: bool = False


@dataclass(frozen=True)
class _Inputs:
    """Latents and noise (N, C, H, W), timesteps (N,)."""

    latents: torch.Tensor
    noise: torch.Tensor
    timesteps: torch.Tensor

    def copy_from(self, other: "_Inputs") -> None:
        for name in ("latents", "noise", "timesteps"):
            getattr(self, name).copy_(getattr(other, name), non_blocking=True)


class Step:
    """Call it for one update. weights: what it trains. last_loss: of the newest update, a scalar on the device."""

    def __init__(self, size: Size, batch_size: int, switches: Switches, device: torch.device) -> None:
        self._device = device
        self._unet = size.build(device).requires_grad_(True)
        if switches.channels_last:
            self._unet.to(memory_format=torch.channels_last)
        self.weights = list(self._unet.parameters())
        self._optimizer = torch.optim.AdamW(
            self.weights, lr=_RATE, weight_decay=1e-2, fused=True, capturable=switches.graph
        )
        # On the CPU, where this is only tried out, the UNet is traced and nothing is compiled: that would take minutes.
        backend = "inductor" if device.type == "cuda" else "eager"
        self._predict = torch.compile(self._unet, backend=backend) if switches.compiled else self._unet
        self._context = torch.randn(batch_size, size.tokens, CONTEXT_WIDTH, device=device)
        betas = torch.linspace(0.00085**0.5, 0.012**0.5, _NUM_TIMESTEPS, device=device) ** 2  # SD1.5's "scaled linear"
        self._schedule = torch.cumprod(1 - betas, dim=0)
        self._from_host = cycle([_drawn(size, batch_size, pinned=device.type == "cuda") for _ in range(_HOST_EXAMPLES)])
        first = next(self._from_host)
        self._inputs = _Inputs(first.latents.to(device), first.noise.to(device), first.timesteps.to(device))
        self.last_loss = torch.zeros((), device=device)
        self._update: Callable[[], None] = self._captured() if switches.graph else self._eager

    def __call__(self) -> None:
        """One update; returns before the device has done it."""
        self._inputs.copy_from(next(self._from_host))
        self._update()

    def _eager(self) -> None:
        self._optimizer.zero_grad(set_to_none=True)
        self._compute()

    def _compute(self) -> None:
        given = self._inputs
        noisy = loss.noisy(given.latents, given.noise, self._schedule, given.timesteps)
        wanted = loss.target("epsilon", given.latents, given.noise, self._schedule, given.timesteps)
        with torch.autocast(self._device.type, torch.bfloat16):
            predicted = self._predict(noisy, given.timesteps, self._context, return_dict=False)[0]
        value = loss.of_batch(predicted, wanted, None, None)
        value.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.weights, 1.0, foreach=True)
        self._optimizer.step()
        self.last_loss = value.detach()

    def _captured(self) -> Callable[[], None]:
        """The step as a graph. Its gradients live in the graph's memory and are overwritten by every replay."""
        aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(_WARM_UP_BEFORE_CAPTURE):
                self._eager()
        torch.cuda.current_stream().wait_stream(aside)
        self._optimizer.zero_grad(set_to_none=True)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._compute()
        return graph.replay


def _drawn(size: Size, batch_size: int, *, pinned: bool) -> _Inputs:
    shape = size.latents(batch_size)
    made = _Inputs(torch.randn(shape), torch.randn(shape), torch.randint(0, _NUM_TIMESTEPS, (batch_size,)))
    return _Inputs(made.latents.pin_memory(), made.noise.pin_memory(), made.timesteps.pin_memory()) if pinned else made
