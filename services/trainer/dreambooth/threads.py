"""How many threads torch computes with on a CPU. `plan` decides before anything is timed or recorded.

In small steps threads wait for each other longer than they work: with models/tiny/sd15-tiny on two cores one thread made a
step at 64 px in 75 ms and two in 105, and at 256 px in 485 and 407 ms. The number is part of what makes results equal bit by bit,
so it follows from the training alone, not from a measurement.
"""

import os
from collections.abc import Mapping
from typing import Final

import torch

_SMALL_FLOPS: Final = 6e9


def settle(device: torch.device, micro_flops: Mapping[str, int]) -> None:
    """Compute in one thread if every stage's micro-steps are small. micro_flops: arithmetic of a micro-step by stage.

    A number that the environment asks for (OMP_NUM_THREADS) is kept.
    """
    if device.type == "cpu" and "OMP_NUM_THREADS" not in os.environ and max(micro_flops.values()) < _SMALL_FLOPS:
        torch.set_num_threads(1)
