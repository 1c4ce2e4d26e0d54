"""Stage 3: pictures and captions of the training set, encoded once by the frozen VAE and text encoder."""

import json
import random
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from drawing import scenes, toys
from drawing.edges import canny
from PIL import Image

from . import publish, text, vae
from .ranks import start

PICTURES = 24_000
CAPTIONS_PER_PICTURE = 2
SCENE_SHARE = 0.62
_SEED = 3
Subject = scenes.Scene | toys.Toy


def subjects() -> list[Subject]:
    """The training set, always the same; held-out scenes are not in it."""
    rng = random.Random(_SEED)
    return [scenes.random_scene(rng) if rng.random() < SCENE_SHARE else toys.random_toy(rng) for _ in range(PICTURES)]


def draw(subject: Subject) -> Image.Image:
    return scenes.draw(subject) if isinstance(subject, scenes.Scene) else toys.draw_toy(subject)


def captions_of(subject: Subject) -> list[str]:
    return scenes.captions(subject) if isinstance(subject, scenes.Scene) else toys.toy_captions(subject)


@torch.no_grad()
def encode_captions(folder: Path) -> None:
    """Writes caption-states.npy (captions, tokens, 768) fp16, caption-of.npy (pictures, 2) and caption-empty.npy."""
    rng = random.Random(_SEED + 1)
    chosen = [rng.sample(captions_of(subject), CAPTIONS_PER_PICTURE) for subject in subjects()]
    unique = {caption: i for i, caption in enumerate(dict.fromkeys(c for pair in chosen for c in pair))}
    _, encoder, _, tokens = publish.load_parts(folder)
    encoder.eval()
    empty = encoder(text.encode_ids(tokens, [""])).last_hidden_state[0]
    np.save(folder / "is-scene.npy", np.array([isinstance(subject, scenes.Scene) for subject in subjects()]))
    np.save(folder / "caption-empty.npy", empty.numpy())
    np.save(folder / "caption-of.npy", np.array([[unique[c] for c in pair] for pair in chosen], np.int32))
    shape = (len(unique), *empty.shape)
    states = np.lib.format.open_memmap(folder / "caption-states.npy", "w+", np.float16, shape)
    texts, began = list(unique), time.monotonic()
    for first in range(0, len(texts), 64):
        batch = encoder(text.encode_ids(tokens, texts[first : first + 64])).last_hidden_state
        states[first : first + 64] = batch.half().numpy()
        if first % 2560 == 0:
            print(f"captions {first} of {len(texts)} {time.monotonic() - began:.0f}s", flush=True)
    states.flush()


@torch.no_grad()
def encode_part(rank: int, processes: int, folder: Path, first: int, last: int) -> None:
    """Encodes every `processes`-th batch of the pictures `first` to `last` into part files of its own."""
    start(rank, 1, "")
    model: AutoencoderKL = publish.load_parts(folder)[0].eval()
    means, deviations, maps = [], [], []
    everything, began = subjects()[first:last], time.monotonic()
    share = np.array_split(np.arange(len(everything)), processes)[rank]
    for chosen in np.array_split(share, max(1, len(share) // 32)):
        drawn = [draw(everything[i]) for i in chosen]
        posterior = model.encode(vae.as_tensor([np.asarray(image) for image in drawn])).latent_dist
        means.append(posterior.mean.numpy())
        deviations.append(posterior.std.numpy())
        maps += [np.packbits(np.asarray(canny(image))[..., 0] > 127) for image in drawn]
    np.savez(folder / f"part-{rank}.npz", np.concatenate(means), np.concatenate(deviations), np.stack(maps))
    print(f"latents {len(share)} {time.monotonic() - began:.0f}s", flush=True)


def merge_parts(folder: Path, processes: int) -> None:
    """Writes latent-mean.npy and latent-deviation.npy (pictures, 4, 8, 8), scaled to unit deviation, the factor, and
    edges.npy, packed bits of the 64 x 64 canny maps."""
    parts = [np.load(folder / f"part-{rank}.npz") for rank in range(processes)]
    mean, deviation, maps = (np.concatenate([part[f"arr_{i}"] for part in parts]) for i in range(3))
    factor_file = folder / "scaling-factor.json"
    if not factor_file.exists():
        factor = float(1 / np.sqrt(mean.var() + (deviation**2).mean()))
        factor_file.write_text(json.dumps(round(factor, 5)) + "\n")
    factor = json.loads(factor_file.read_text())
    print(
        f"latents: mean {mean.mean() * factor:.3f}, posterior/mean std {deviation.mean() / mean.std():.3f}, factor {factor}"
    )
    np.save(folder / "latent-mean.npy", mean * np.float32(factor))
    np.save(folder / "latent-deviation.npy", deviation * np.float32(factor))
    np.save(folder / "edges.npy", maps)
