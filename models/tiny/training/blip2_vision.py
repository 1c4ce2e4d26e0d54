"""Stage `vision`: ViT and Q-Former learn to tell the attributes of a picture, one query token for each.

The counterpart of BLIP-2's first stage. Without it the language model learns captions that ignore the picture long
before the ViT says anything about it.
"""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from .blip2_models import WIDTH, pixels
from .blip2_optim import Optimisers, cosine, load_state, save_state
from .blip2_pictures import ATTRIBUTES

WEIGHTS = {"kind": 1.5, "accent": 0.7}  # of the attributes' losses; 1 for the others


@dataclass(frozen=True)
class VisionSettings:
    steps: int = 1200
    batch: int = 48
    muon_rate: float = 0.02
    adam_rate: float = 1e-3
    seed: int = 11
    device: str = "cpu"


class Heads(torch.nn.Module):
    """One classifier per attribute, on the output of the query token with its number; training only."""

    def __init__(self) -> None:
        super().__init__()
        self.all = torch.nn.ModuleList(torch.nn.Linear(WIDTH, len(values)) for values in ATTRIBUTES.values())

    def loss(self, queries: torch.Tensor, numbers: torch.Tensor) -> tuple[torch.Tensor, list[float]]:
        """Cross-entropy summed over attributes, and the share of right answers of each."""
        total, right = queries.new_zeros(()), []
        for i, (name, head) in enumerate(zip(ATTRIBUTES, self.all, strict=True)):
            logits = head(queries[:, i])
            total = total + WEIGHTS.get(name, 1.0) * F.cross_entropy(logits, numbers[:, i], label_smoothing=0.05)
            right.append((logits.argmax(1) == numbers[:, i]).float().mean().item())
        return total, right


class Pool:
    """The drawn pictures on disk; batches shift each picture by up to 2 px."""

    def __init__(self, folder: Path) -> None:
        self.pictures = np.load(folder / "pool-pictures.npy", mmap_mode="r")
        self.labels = np.load(folder / "pool-labels.npy")

    def batch(self, rng: np.random.Generator, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        chosen = rng.integers(len(self.labels), size=count)
        pictures = np.pad(self.pictures[chosen], ((0, 0), (2, 2), (2, 2), (0, 0)), mode="edge")
        y, x = rng.integers(5, size=2) if rng.random() < 0.5 else (2, 2)
        return pixels(pictures[:, y : y + 64, x : x + 64].copy()), torch.from_numpy(self.labels[chosen])


def query_outputs(model: torch.nn.Module, pixel_values: torch.Tensor) -> torch.Tensor:
    """What the Q-Former says about the pictures: (n, queries, width)."""
    image = model.vision_model(pixel_values=pixel_values).last_hidden_state
    queries = model.query_tokens.expand(len(image), -1, -1)
    return model.qformer(query_embeds=queries, encoder_hidden_states=image).last_hidden_state


def train(model: torch.nn.Module, folder: Path, settings: VisionSettings) -> None:
    """Trains ViT, query tokens and Q-Former of `model`; writes `blip2-vision.pt` every 100 steps and at the end."""
    device = torch.device(settings.device)
    model.to(device)
    heads, pool = Heads().to(device), Pool(folder)
    parts = torch.nn.ModuleDict({"vision_model": model.vision_model, "qformer": model.qformer, "heads": heads})
    named = [*parts.named_parameters(), ("query_tokens", model.query_tokens)]
    optimisers = Optimisers(named, settings.muon_rate, settings.adam_rate)
    file = folder / "blip2-vision.pt"
    queries = torch.nn.ParameterList([model.query_tokens])
    first = load_state(file, optimisers, parts=parts, queries=queries)
    began, history = time.monotonic(), []
    for step in range(first, settings.steps):
        pictures, numbers = pool.batch(np.random.default_rng([settings.seed, step]), settings.batch)
        loss, right = heads.loss(query_outputs(model, pictures.to(device)), numbers.to(device))
        optimisers.step(loss, cosine(step, settings.steps))
        history.append([loss.item(), *right])
        if step % 20 == 19:
            means = np.mean(history[-20:], axis=0)
            shares = " ".join(f"{name} {share:.2f}" for name, share in zip(ATTRIBUTES, means[1:], strict=True))
            print(f"vision {step + 1} loss {means[0]:.3f} {shares} {time.monotonic() - began:.0f}s", flush=True)
        if step % 100 == 99 or step == settings.steps - 1:
            save_state(file, step + 1, optimisers, parts=parts, queries=queries)
