"""Every sampler with every schedule it is listed with, on a model whose answer is known.

If all pictures of the world are one picture c, the best prediction of the noise in x = sqrt(a) c + sqrt(1 - a) e is
(x - sqrt(a) c) / sqrt(1 - a), and every correct sampler ends at c.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDPMScheduler
from webui_engine import noise
from webui_engine.catalogue import Catalogue
from webui_engine.generate import Guidance, sample
from webui_engine.options import Options
from webui_engine.pipelines import Loaded, Placement
from webui_engine.planning import Limits, make_plan
from webui_engine.progress import Progress
from webui_engine.samplers import SAMPLERS
from webui_engine.schemas import Img2ImgRequest, Txt2ImgRequest

from .conftest import as_base64, drawing

PAIRS = [(s.name, schedule) for s in SAMPLERS for schedule in dict.fromkeys([*s.schedules, "automatic"])]
PICTURE = torch.tensor([0.9, -0.4, 0.2, -1.1]).reshape(1, 4, 1, 1)
TEXT = torch.zeros(1, 3, 8)
TOLERANCE = 0.15  # DDIM and PLMS end at the first training step, where 3 % of noise (up to 4 sigma of it) are left
INIT = as_base64(drawing())


class KnownModel:
    """Predicts the noise of a world with one picture; takes fractional timesteps."""

    def __init__(self, scheduler_config: dict[str, Any]) -> None:
        self.alphas = DDPMScheduler(**scheduler_config).alphas_cumprod

    def __call__(self, latents: torch.Tensor, timestep: Any, **_: Any) -> tuple[torch.Tensor]:
        position = torch.as_tensor(timestep).float().clamp(0, 999)
        low = position.floor().long()
        high = (low + 1).clamp(max=999)
        # The schedulers interpolate the logarithm of sigma between training steps.
        log_sigma = torch.lerp(self.log_sigma(low), self.log_sigma(high), position - low)
        alpha = 1 / (1 + (2 * log_sigma).exp())
        return ((latents - alpha.sqrt() * PICTURE) / (1 - alpha).sqrt(),)

    def log_sigma(self, index: torch.Tensor) -> torch.Tensor:
        return ((1 - self.alphas[index]) / self.alphas[index]).sqrt().log()


@pytest.fixture(scope="module")
def loaded(tiny_models: Path) -> Loaded:
    """The known model in place of a UNet, with the noise levels of sd15-tiny."""
    config = json.loads((tiny_models / "sd15-tiny" / "scheduler" / "scheduler_config.json").read_text())
    levels = {key: config[key] for key in ("beta_start", "beta_end", "beta_schedule", "num_train_timesteps")}
    parts: dict[str, Any] = dict.fromkeys(("model", "vae", "text_encoder", "tokenizer", "preview"))
    return Loaded(unet=KnownModel(levels), scheduler_config=config, placement=Placement.choose("cpu", "fp32"), **parts)


def run(loaded: Loaded, tmp_path: Path, request: Any, start: torch.Tensor | None = None) -> torch.Tensor:
    catalogue = Catalogue([], [], tmp_path)
    plan = make_plan(request, catalogue, Options(), Limits(10**6, 8))
    progress = Progress()
    progress.begin("task", 1)
    generators = [noise.generator(seed) for seed in plan.seeds]
    noises = torch.stack([noise.initial((4, 8, 8), own, 0, 0) for own in generators])
    found = sample(plan, loaded, Guidance(TEXT, None, 1), [], noises, start, generators, progress)
    assert progress.now.step == plan.steps
    return found


@pytest.mark.parametrize(("sampler", "schedule"), PAIRS)
def test_it_ends_at_the_picture(loaded: Loaded, tmp_path: Path, sampler: str, schedule: str) -> None:
    for steps in (1, 20):
        request = Txt2ImgRequest(
            sampler_name=sampler, scheduler=schedule, steps=steps, seed=1, batch_size=2, cfg_scale=1
        )
        found = run(loaded, tmp_path, request)
        assert torch.isfinite(found).all(), steps
    assert (found - PICTURE).abs().max() < TOLERANCE


@pytest.mark.parametrize(("sampler", "schedule"), PAIRS)
def test_so_it_does_from_another_picture(loaded: Loaded, tmp_path: Path, sampler: str, schedule: str) -> None:
    request = Img2ImgRequest(
        sampler_name=sampler,
        scheduler=schedule,
        steps=20,
        seed=1,
        init_images=[INIT],
        denoising_strength=0.6,
        cfg_scale=1,
    )
    found = run(loaded, tmp_path, request, torch.zeros(1, 4, 8, 8))
    assert (found - PICTURE).abs().max() < TOLERANCE
