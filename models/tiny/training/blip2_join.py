"""Stage `join`: pictures take the place of the symbols, then ViT, Q-Former and language model train together."""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import Blip2ForConditionalGeneration

from .blip2_language import Symbols, random_texts, text_loss
from .blip2_models import build_captioner
from .blip2_optim import Average, Optimisers, cosine, load_state, save_state
from .blip2_pictures import Pool, fact_from, load_pool
from .blip2_tokenizers import build_opt
from .blip2_vision import Heads, random_batch, see, trained_parts, vision_loss


@dataclass(frozen=True)
class JoinSettings:
    steps: int = 1200
    pictures: int = 48
    texts_per_picture: int = 3
    muon_rate: float = 0.015
    adam_rate: float = 6e-4
    vision_weight: float = 0.4
    seed: int = 13
    device: str = "cpu"


def start(folder: Path, device: str) -> tuple[Blip2ForConditionalGeneration, Heads]:
    """The model from the parts of the stages `vision` and `language`, its projection fitted to the symbols; after
    `restore`, where these stages left nothing, the restored captioner with fresh heads.
    """
    model = build_captioner(build_opt(folder / "opt-tokenizer"))
    heads, symbols = Heads(), Symbols()
    if not (folder / "blip2-vision.pt").exists():
        model.load_state_dict(torch.load(folder / "blip2-captioner.pt", weights_only=True))
        return model.to(device), heads.to(device)
    parts = torch.load(folder / "blip2-vision.pt", weights_only=True)["parts"]
    trained_parts(model, heads).load_state_dict(parts)
    with torch.no_grad():
        model.query_tokens.copy_(parts["queries.0"])
    language = torch.load(folder / "blip2-language.pt", weights_only=True)
    model.language_model.load_state_dict(language["language"])
    symbols.load_state_dict(language["symbols"])
    fit_projection(model, symbols, load_pool(folder))
    return model.to(device), heads.to(device)


@torch.no_grad()
def fit_projection(model: Blip2ForConditionalGeneration, symbols: Symbols, pool: Pool, pictures: int = 1500) -> None:
    """Least squares from the Q-Former's outputs to the symbols that the language model already understands."""
    outputs, targets = [], []
    for first in range(0, pictures, 100):
        rng = np.random.default_rng([99, first])
        batch = random_batch(pool, rng, 100, "cpu")
        outputs.append(see(model, batch.pixels).queries.flatten(0, 1))
        targets.append(symbols(batch.numbers).flatten(0, 1))
    x = torch.cat(outputs).double()
    x = torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], dim=1)
    y = torch.cat(targets).double()
    solution = torch.linalg.solve(x.T @ x + 0.1 * torch.eye(x.shape[1], dtype=x.dtype), x.T @ y)
    print(f"projection explains {1 - ((x @ solution - y).square().sum() / y.square().sum()).item():.3f}", flush=True)
    model.language_projection.weight.copy_(solution[:-1].T)
    model.language_projection.bias.copy_(solution[-1])


def train(folder: Path, settings: JoinSettings) -> None:
    """Writes `blip2-join.pt` and the averaged weights `blip2-captioner.pt` every 100 steps and at the end."""
    tokens, pool = build_opt(folder / "opt-tokenizer"), load_pool(folder)
    model, heads = start(folder, settings.device)
    parts = torch.nn.ModuleDict({"model": model, "heads": heads})
    optimisers = Optimisers(parts.named_parameters(), settings.muon_rate, settings.adam_rate)
    file = folder / "blip2-join.pt"
    average = Average(model)
    first = load_state(file, optimisers, parts=parts, average=average)
    began, history = time.monotonic(), []
    for step in range(first, settings.steps):
        batch = random_batch(pool, np.random.default_rng([settings.seed, step]), settings.pictures, settings.device)
        facts = [fact_from(row) for row in batch.numbers.tolist()]
        texts = random_texts(tokens, facts, f"{settings.seed}/{step}", settings.texts_per_picture)
        seen = see(model, batch.pixels)
        prefix = model.language_projection(seen.queries).repeat_interleave(settings.texts_per_picture, dim=0)
        told, right = text_loss(model.language_model, prefix, texts)
        visual, shares = vision_loss(heads, seen, batch)
        optimisers.step(told + settings.vision_weight * visual, cosine(step, settings.steps, hold=0.2))
        average.update(model, step)
        history.append((told.item(), right, visual.item(), shares[0]))
        if step % 20 == 19:
            means = " ".join(f"{value:.4f}" for value in np.mean(history[-20:], axis=0))
            seconds = time.monotonic() - began
            print(f"join {step + 1} text-loss, right, vision-loss, kind: {means} {seconds:.0f}s", flush=True)
        if step % 100 == 99 or step == settings.steps - 1:
            save_state(file, step + 1, optimisers, parts=parts, average=average)
            torch.save(average.model.state_dict(), folder / "blip2-captioner.pt")
