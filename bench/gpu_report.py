"""What `train_gpu` found, for people: the machine, a sentence for each configuration, a Markdown table."""

import platform
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import torch

from bench.gpu_step import Switches

OUT_OF_MEMORY: Final = "out of GPU memory"


@dataclass(frozen=True)
class Row:
    """One configuration. switches: None for the trainer's own loop. failed: why there are no numbers, else empty.

    warm_up_seconds: model, compilation, capture and the first steps. mfu: share of the GPU's dense bf16 peak, None where
    that is not known. peak_memory_gib: of torch's allocator.
    """

    batch_size: int
    switches: Switches | None
    failed: str = ""
    steps_per_second: float = 0.0
    images_per_second: float = 0.0
    tflop_per_step: float = 0.0
    mfu: float | None = None
    peak_memory_gib: float = 0.0
    warm_up_seconds: float = 0.0

    @property
    def name(self) -> str:
        """The configuration in words, without the batch size."""
        if self.switches is None:
            return "the trainer's loop"
        words = {"compiled": "compile", "channels_last": "channels_last", "graph": "CUDA graph"}
        on = [word for field, word in words.items() if getattr(self.switches, field)]
        return " + ".join(on) or "eager"


def machine(device: torch.device) -> dict[str, str]:
    """Name of the device, its driver, torch and its CUDA, and the date."""
    is_gpu = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if is_gpu else f"CPU ({platform.machine()})",
        "driver": _driver() if is_gpu else "none",
        "torch": torch.__version__,
        "cuda": torch.version.cuda or "none",
        "date": datetime.now(UTC).date().isoformat(),
    }


def sentence(row: Row) -> str:
    """One row for a person."""
    begins = f"batch {row.batch_size}, {row.name}"
    if row.failed:
        return f"{begins}: {row.failed}"
    return (
        f"{begins}: {row.steps_per_second:.2f} steps/s, {row.images_per_second:.2f} images/s, MFU {_share(row.mfu)}, "
        f"{row.peak_memory_gib:.1f} GiB, warm after {row.warm_up_seconds:.0f} s"
    )


def markdown(machine: Mapping[str, str], rows: Sequence[Row]) -> str:
    """The table of docs/performance.md."""
    lines = [
        f"{machine['device']}, driver {machine['driver']}, torch {machine['torch']} (CUDA {machine['cuda']}), "
        f"{machine['date']}.",
        "",
        "| batch | step | steps/s | images/s | MFU | peak memory, GiB | warm after, s |",
        "|---|---|---|---|---|---|---|",
    ]
    return "\n".join([*lines, *(_line(row) for row in rows)])


def _line(row: Row) -> str:
    if row.failed:
        return f"| {row.batch_size} | {row.name} | {row.failed} | | | | |"
    numbers = f"{row.steps_per_second:.2f} | {row.images_per_second:.2f} | {_share(row.mfu)}"
    return f"| {row.batch_size} | {row.name} | {numbers} | {row.peak_memory_gib:.1f} | {row.warm_up_seconds:.0f} |"


def _share(mfu: float | None) -> str:
    return "unknown" if mfu is None else f"{mfu:.1%}"


def _driver() -> str:
    if shutil.which("nvidia-smi") is None:
        return "unknown"
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", "--id=0"]
    return subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip()
