"""What is recorded of the reference: the images, the prompts, and the arguments of every case.

Names are those of diffusers' `examples/dreambooth/train_dreambooth.py`. The images are plain integer arithmetic, so
that no library's drawing decides their bytes. Among them are one larger than the resolution, one that has its shape and
is only made smaller (no crop to draw), one tall and one that is made larger.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

RESOLUTION_PX: Final = 64
STEPS: Final = 10
LEARNING_RATE: Final = 5e-4
PROMPT: Final = "a photo of sks toy"
CLASS_PROMPT: Final = "a photo of toy"
INSTANCE_SIZES: Final = ((96, 72), (80, 80), (70, 128), (50, 61))  # width and height in px
CLASS_SIZES: Final = ((72, 72), (90, 70), (64, 64), (70, 75), (66, 120), (100, 80))

_PRIOR: Final = ("--with_prior_preservation", "--prior_loss_weight=1.0", f"--num_class_images={len(CLASS_SIZES)}")


@dataclass(frozen=True)
class Case:
    """One run of the script: what it adds to the plain case, and what the base model predicts."""

    extra: tuple[str, ...] = ()
    batch_size: int = 1
    prediction_type: str = "epsilon"


CASES: Final = {
    "plain": Case(),
    "center_crop": Case(("--center_crop",)),
    "batch2": Case(batch_size=2),
    "batch2_accumulation2": Case(("--gradient_accumulation_steps=2",), batch_size=2),
    # Batches of three and of one image, and the epoch ends before the accumulation is full: the script updates then,
    # with gradients that are still divided by three.
    "cut_accumulation": Case(("--gradient_accumulation_steps=3",), batch_size=3),
    "train_text_encoder": Case(("--train_text_encoder",)),
    "offset_noise": Case(("--offset_noise",), batch_size=2),
    "snr_gamma": Case(("--snr_gamma=5.0",), batch_size=2),
    "snr_gamma_v_prediction": Case(("--snr_gamma=5.0",), batch_size=2, prediction_type="v_prediction"),
    "prior_preservation": Case(_PRIOR),
    "prior_preservation_batch2": Case(_PRIOR, batch_size=2),
    "cosine_warmup": Case(("--lr_scheduler=cosine", "--lr_warmup_steps=3")),
    "linear_warmup": Case(("--lr_scheduler=linear", "--lr_warmup_steps=3")),
    "polynomial": Case(("--lr_scheduler=polynomial", "--lr_warmup_steps=2", "--lr_power=2.0")),
    "v_prediction": Case(prediction_type="v_prediction"),
    "bf16": Case(("--mixed_precision=bf16",)),
    "bf16_train_text_encoder": Case(("--mixed_precision=bf16", "--train_text_encoder")),
    "adamw_8bit": Case(("--use_8bit_adam",)),
    "gradient_checkpointing": Case(("--gradient_checkpointing",)),
    "pre_compute_text_embeddings": Case(("--pre_compute_text_embeddings",)),
}


def arguments(case: Case) -> list[str]:
    """The arguments of the script, without the folders, which are another each time."""
    return [
        f"--instance_prompt={PROMPT}",
        f"--resolution={RESOLUTION_PX}",
        f"--train_batch_size={case.batch_size}",
        f"--max_train_steps={STEPS}",
        f"--learning_rate={LEARNING_RATE}",
        "--max_grad_norm=1.0",
        "--seed=0",
        *([f"--class_prompt={CLASS_PROMPT}"] if "--with_prior_preservation" in case.extra else []),
        *case.extra,
    ]


def draw_instances(folder: Path) -> list[Path]:
    """Write the instance images to `folder` and return them in the order in which they are numbered."""
    return _draw(folder, INSTANCE_SIZES, 0)


def draw_class(folder: Path) -> list[Path]:
    """Write the class images to `folder` and return them in the order in which they are numbered."""
    return _draw(folder, CLASS_SIZES, 100)


def _draw(folder: Path, sizes: tuple[tuple[int, int], ...], first: int) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{number}.png" for number in range(len(sizes))]
    for number, (file, size) in enumerate(zip(files, sizes, strict=True), start=first):
        _picture(number, *size).save(file)
    return files


def _picture(number: int, width: int, height: int) -> Image.Image:
    """A disc on a coloured slope, another one for each number."""
    y, x = np.mgrid[0:height, 0:width]
    radius = min(width, height) // 3
    disc = (x - width // 2) ** 2 + (y - height // 2 + number % 7) ** 2 < radius**2
    channels = [3 * x + 60 * number, 2 * y + 40 * number, np.where(disc, 230, 30 + 5 * number)]
    return Image.fromarray((np.stack(channels, axis=-1) % 256).astype(np.uint8), "RGB")
