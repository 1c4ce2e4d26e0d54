"""The device of the order, DARKROOM_DEVICE: a Job that holds a GPU computes on it or ends, see `jobs.render`.

torch's build for ROCm gives GPUs of AMD the name cuda, too.
"""

from typing import Final

import torch

from dreambooth.errors import DeviceUnusable

AUTO: Final = "auto"
CPU: Final = "cpu"
CUDA: Final = "cuda"


def num_gpus(device: str) -> int:
    """GPUs of this machine to compute on. device: auto, cpu or cuda. Only auto takes none for an answer, see `check_gpu`."""
    if device == CPU or (device == AUTO and not torch.cuda.is_available()):
        return 0
    return torch.cuda.device_count()


def check_gpu(index: int) -> None:
    """Raise DeviceUnusable, with torch's reason, if a GPU cannot compute: none there, no driver, another architecture.

    Raises MemoryError if its memory is full: that may pass.
    """
    try:
        torch.ones(1, device=f"{CUDA}:{index}").add_(1).item()
    except (AssertionError, RuntimeError) as error:  # the former from a build without CUDA
        if "out of memory" in str(error):
            raise MemoryError(f"GPU {index} has no memory left: {error}") from error
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise DeviceUnusable(
            f"DARKROOM_DEVICE is 'cuda', but torch cannot compute on GPU {index}: {reason}. Found: torch {_build()}, which "
            f"sees {torch.cuda.device_count()} GPUs. Use the CUDA build (images with -cuda behind their tag) on a machine "
            "with a GPU and a driver for it, or set the device to cpu"
        ) from error


def _build() -> str:
    """Version of torch, and what it was built for."""
    if torch.version.hip:
        made_for = f"ROCm {torch.version.hip}"
    elif torch.version.cuda:
        made_for = f"CUDA {torch.version.cuda}"
    else:
        made_for = "CPUs alone"
    return f"{torch.__version__} for {made_for}"
