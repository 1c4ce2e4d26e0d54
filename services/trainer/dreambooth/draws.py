"""Every random number of a training, each a pure function of what it is for.

A draw is named by (seed, stage, step, micro-step, purpose). The name is hashed (BLAKE2b, 128 bits) to the key of a
Philox counter generator (Salmon et al. 2011, DOI 10.1145/2063384.2063405), and the numbers are read from its start.
So no draw depends on another, on their order, on sampling, on the device or on the number of threads: step k can be
replayed alone, and a resumed run draws what an uninterrupted one would have drawn. There is no generator state to save.

numpy draws rather than torch: torch's CPU generator keeps 32 bits of its seed, and its normal numbers differ between
CPUs with and without AVX2. Streams may change with the numpy version; the lock pins it.

Steps count from 1. The micro-step counts from 0 inside a step, over all processes.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

# Purposes. The text is part of the draw's name: changing one changes every number drawn for it.
ORDER = "order"
CLASS_ORDER = "class_order"
BUCKET_ORDER = "bucket_order"
CROP = "crop"
FLIP = "flip"
LATENT = "latent"
NOISE = "noise"
OFFSET = "offset"
DROPOUT = "dropout"
ADAPTER = "adapter"
CLASS_IMAGE = "class_image"
TIMESTEP = "timestep"
SAMPLE = "sample"


def generator(seed: int, stage: str, step: int, micro_step: int, purpose: str) -> np.random.Generator:
    """A generator at the start of the stream that belongs to this name alone."""
    name = f"{seed}/{stage}/{step}/{micro_step}/{purpose}".encode()
    key = hashlib.blake2b(name, digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=np.frombuffer(key, dtype="<u8").astype(np.uint64)))


@lru_cache(maxsize=64)
def _permutation(seed: int, stage: str, epoch: int, count: int, purpose: str) -> list[int]:
    return [int(i) for i in generator(seed, stage, epoch, 0, purpose).permutation(count)]


@dataclass(frozen=True)
class Draws:
    """The draws of one stage of one run."""

    seed: int
    stage: str

    def normal(self, step: int, purpose: str, shape: Sequence[int], micro_step: int = 0) -> torch.Tensor:
        """Standard normal numbers, fp32 on the CPU."""
        numbers = generator(self.seed, self.stage, step, micro_step, purpose)
        return torch.from_numpy(numbers.standard_normal(tuple(shape), dtype=np.float32))

    def integers(self, step: int, purpose: str, below: Sequence[int], micro_step: int = 0) -> list[int]:
        """One whole number from 0 to below[i] - 1 for each i."""
        numbers = generator(self.seed, self.stage, step, micro_step, purpose)
        return [int(numbers.integers(limit)) for limit in below]

    def uniform(self, step: int, purpose: str, count: int, micro_step: int = 0) -> list[float]:
        """`count` numbers from 0 to below 1."""
        return [float(x) for x in generator(self.seed, self.stage, step, micro_step, purpose).random(count)]

    def permutation(self, epoch: int, count: int, purpose: str = ORDER) -> list[int]:
        """The order in which `count` images are shown in an epoch (from 0). The newest few are remembered."""
        return _permutation(self.seed, self.stage, epoch, count, purpose)
