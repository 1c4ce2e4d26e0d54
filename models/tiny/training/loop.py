"""The training loop that all diffusion stages share: rates, update, averaging, progress lines, resuming."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from .muon import optimizers
from .ranks import average_weights, cosine, start

SAVE_EVERY = 80  # a multiple of the steps between two averages over the processes
LossOf = Callable[[int], tuple[torch.Tensor, dict[str, float]]]


@dataclass(frozen=True)
class Rates:
    steps: int
    muon: float
    adam: float
    average_decay: float  # of the running average of the weights, which is what is kept; 0 keeps the last weights


def run(
    model: torch.nn.Module, loss_of: LossOf, rates: Rates, name: str, folder: Path, rank: int, processes: int
) -> None:
    """Trains to `rates.steps` from wherever `<name>-state.pt` stands, and writes `<name>.pt` beside it.

    Where there is a result but no state, as after `restore`, all steps are made from the result.

    `loss_of(step)` gives the loss and what to print; its random draws must depend on step and rank alone.
    """
    start(rank, processes, str(folder / f"{name}.group"))
    chosen = optimizers(model, rates.muon, rates.adam)
    base_rates = [optimizer.param_groups[0]["lr"] for optimizer in chosen]
    state_file, result, first = folder / f"{name}-state.pt", folder / f"{name}.pt", 0
    if result.exists():
        model.load_state_dict(torch.load(result, weights_only=True))
    average = {key: value.detach().clone() for key, value in model.state_dict().items()}
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        model.load_state_dict(state["model"])
        for optimizer, saved in zip(chosen, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        average, first = state["average"], state["step"]
    began = time.monotonic()
    for step in range(first, rates.steps):
        for optimizer, rate in zip(chosen, base_rates, strict=True):
            optimizer.param_groups[0]["lr"] = rate * cosine(step, rates.steps)
        loss, report = loss_of(step)
        _update(model, chosen, loss)
        average_weights(model, step, processes)
        decay = min(rates.average_decay, (step + 1) / (step + 10))
        torch._foreach_lerp_(list(average.values()), list(model.state_dict().values()), 1 - decay)
        if rank == 0 and step % 20 == 19:
            words = " ".join(f"{key} {value:.4f}" for key, value in report.items())
            print(f"{name} {step + 1} {words} {time.monotonic() - began:.0f}s", flush=True)
        if rank == 0 and (step % SAVE_EVERY == SAVE_EVERY - 1 or step == rates.steps - 1):
            saved = {"model": model.state_dict(), "average": average, "step": step + 1}
            torch.save(saved | {"optimizers": [optimizer.state_dict() for optimizer in chosen]}, state_file)
            torch.save({key: value.cpu() for key, value in average.items()}, result)


def _update(model: torch.nn.Module, chosen: list[torch.optim.Optimizer], loss: torch.Tensor) -> None:
    for optimizer in chosen:
        optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.grad is not None], 1.0)
    for optimizer in chosen:
        optimizer.step()
