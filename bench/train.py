"""`python -m bench.train`: the trainer's speed on the CPU with the tiny model, as ratios measured side by side.

train_steps      steps/s of its loop over those of a plain loop in the order of diffusers' script (`plain_loop`)
train_overhead   what records, resume points and samples every 50 steps cost above the bare loop
save_stall       a blocking save over the stall of an asynchronous one

The S3 server of the last two is started for them, or the one that DARKROOM_S3_ENDPOINT names with its credentials.
One JSON line for each result on stdout, a sentence on stderr. docs/performance.md says more.
"""

import argparse
import os
import sys
import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Extent:
    """How much is measured. blocks, steps: of `train_steps`. rounds, every: of `train_overhead`."""

    blocks: int
    steps: int
    rounds: int
    every: int
    points: int


FULL = Extent(blocks=9, steps=8, rounds=2, every=50, points=7)
QUICK = Extent(blocks=1, steps=1, rounds=1, every=2, points=1)


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a step or two of everything: tries the code, no numbers")
    parser.add_argument("--only", choices=("steps", "overhead", "stall"), help="measure one of the three")
    arguments = parser.parse_args()
    # As `dreambooth` does: waiting threads sleep instead of spinning on cores that others need.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from bench import save_stall, train_overhead, train_steps, workshop

    extent = QUICK if arguments.quick else FULL
    began = time.monotonic()
    with workshop.opened() as shop:
        if arguments.only in (None, "steps"):
            for case in train_steps.CASES:
                train_steps.measure(shop, case, extent.blocks, extent.steps)
        if arguments.only in (None, "stall"):
            save_stall.measure(shop, extent.points)
        if arguments.only in (None, "overhead"):
            for batch_size, warm, timed in train_overhead.CASES:
                train_overhead.measure(shop, batch_size, extent.rounds, extent.every, warm, timed)
    print(f"took {time.monotonic() - began:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
