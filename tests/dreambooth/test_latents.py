from pathlib import Path

import numpy as np
import pytest
import torch
from dreambooth import base_model, parts
from dreambooth.batches import View
from dreambooth.dataset import TrainingImage
from dreambooth.latents import Latents
from dreambooth.parts import Parts

VIEWS = (View(0, 0, 3, False), View(1, 0, 0, True))


@pytest.fixture(scope="module")
def model(micro: Path) -> Parts:
    return parts.load(base_model.describe("micro", micro), torch.device("cpu"))


@pytest.fixture(scope="module")
def images() -> list[TrainingImage]:
    made = np.random.default_rng(0)
    return [
        TrainingImage(f"{i}.png", "", "toy", made.integers(0, 256, (32, width, 3), dtype=np.uint8), (32, 32))
        for i, width in enumerate((40, 32))
    ]


def picture_of(image: TrainingImage, view: View) -> torch.Tensor:
    square = image.pixels[:32, view.left : view.left + 32]
    square = square[:, ::-1] if view.mirrored else square
    return torch.tensor(square.copy()).permute(2, 0, 1)[None] / 127.5 - 1


def test_cached_latents_equal_an_encode_in_every_step(model: Parts, images: list[TrainingImage]) -> None:
    cached, uncached = Latents(model, images), Latents(model, images, cached=False)
    for step in range(3):
        noise = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(step))
        for i, view in enumerate(VIEWS):
            own = noise[i : i + 1]
            assert torch.equal(cached.sample([view], own), uncached.sample([view], own))
        # Encoded together, the last digits may be others: convolutions choose their way by the size of the batch.
        assert torch.allclose(cached.sample(VIEWS, noise), uncached.sample(VIEWS, noise), rtol=1e-4, atol=1e-5)


def test_latents_equal_the_sample_of_diffusers(model: Parts, images: list[TrainingImage]) -> None:
    latents = Latents(model, images)
    noise = torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(3))
    for view in VIEWS:
        with torch.no_grad():
            posterior = model.vae.encode(picture_of(images[view.index], view)).latent_dist
        theirs = posterior.sample(torch.Generator().manual_seed(3)) * model.vae.config.scaling_factor
        assert torch.allclose(latents.sample([view], noise), theirs, rtol=1e-6, atol=1e-7)


def test_the_vae_runs_once_for_each_view(
    model: Parts, images: list[TrainingImage], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    encode = model.vae.encode
    monkeypatch.setattr(model.vae, "encode", lambda picture: calls.append(1) or encode(picture))
    latents = Latents(model, images)
    for _ in range(4):
        latents.sample(VIEWS, torch.zeros(2, 4, 4, 4))
    assert len(calls) == 2


def test_the_cache_stays_within_its_size(
    model: Parts, images: list[TrainingImage], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = 2 * 4 * 4 * 4 * 4
    monkeypatch.setattr("dreambooth.latents.MAX_CACHE_BYTES", 3 * one)
    latents = Latents(model, images)
    first = latents.distribution(View(0, 0, 0, False))
    for left in range(1, 6):
        latents.distribution(View(0, 0, left, False))
    assert len(latents._known) == 3
    assert torch.equal(latents.distribution(View(0, 0, 0, False)), first)
