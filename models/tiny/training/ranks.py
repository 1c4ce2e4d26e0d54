"""Data-parallel training over single-thread processes: on few busy cores faster than threads inside operators."""

import math
from collections.abc import Iterable

import torch
import torch.distributed as dist


def start(rank: int, processes: int, folder: str) -> None:
    """Joins the group; one process needs none."""
    torch.set_num_threads(1)
    if processes > 1:
        dist.init_process_group("gloo", init_method=f"file://{folder}", rank=rank, world_size=processes)


def average_gradients(parameters: Iterable[torch.nn.Parameter], processes: int) -> None:
    """Replaces every gradient by its mean over the processes, in one message."""
    if processes == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([g.flatten() for g in gradients])
    dist.all_reduce(flat)
    flat /= processes
    position = 0
    for gradient in gradients:
        gradient.copy_(flat[position : position + gradient.numel()].view_as(gradient))
        position += gradient.numel()


def cosine(step: int, steps: int, warmup: int = 50, hold: float = 0.3, floor: float = 0.02) -> float:
    """Learning-rate factor: linear warm-up, constant for the share `hold`, then cosine down to `floor`."""
    if step < warmup:
        return (step + 1) / warmup
    start_step = max(warmup, int(hold * steps))
    if step < start_step:
        return 1.0
    progress = min(1.0, (step - start_step) / max(1, steps - start_step))
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))
