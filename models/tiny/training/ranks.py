"""Data-parallel training over single-thread processes: on few busy cores faster than threads inside operators."""

import math

import torch
import torch.distributed as dist


def start(rank: int, processes: int, folder: str) -> None:
    """Joins the group; one process needs none."""
    torch.set_num_threads(1)
    if processes > 1:
        dist.init_process_group("gloo", init_method=f"file://{folder}", rank=rank, world_size=processes)


def average_weights(model: torch.nn.Module, step: int, processes: int, every: int = 8) -> None:
    """Every few steps replaces the weights by their mean over the processes (local SGD, Stich 2018).

    Averaging gradients at each step would make every process wait for the slowest one at each step.
    """
    if processes == 1 or step % every != every - 1:
        return
    weights = [p.data for p in model.parameters() if p.requires_grad]
    flat = torch.cat([w.flatten() for w in weights])
    dist.all_reduce(flat)
    flat /= processes
    position = 0
    for weight in weights:
        weight.copy_(flat[position : position + weight.numel()].view_as(weight))
        position += weight.numel()


def cosine(step: int, steps: int, warmup: int = 50, hold: float = 0.3, floor: float = 0.02) -> float:
    """Learning-rate factor: linear warm-up, constant for the share `hold`, then cosine down to `floor`."""
    if step < warmup:
        return (step + 1) / warmup
    start_step = max(warmup, int(hold * steps))
    if step < start_step:
        return 1.0
    progress = min(1.0, (step - start_step) / max(1, steps - start_step))
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))
