"""Trains sd15-tiny and controlnet-canny-tiny, stage by stage; every stage resumes from its last saved state.

    python train.py vae|text|latents|unet|controlnet|save|scores [--work FOLDER] [--processes N] [--steps N]

Run the stages in this order. A stage with N processes uses N single-thread processes on the CPU.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch.multiprocessing as multiprocessing


def _vae(arguments: argparse.Namespace) -> None:
    from training import vae

    settings = vae.VaeSettings()
    settings = replace(settings, steps=arguments.steps or settings.steps)
    _spawn(vae.train, arguments, settings)


def _spawn(train: Callable[..., None], arguments: argparse.Namespace, settings: object) -> None:
    arguments.work.mkdir(parents=True, exist_ok=True)
    for stale in arguments.work.glob("*.group"):
        stale.unlink()
    multiprocessing.spawn(train, (arguments.processes, arguments.work, settings), arguments.processes)


STAGES: dict[str, Callable[[argparse.Namespace], None]] = {"vae": _vae}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=tuple(STAGES))
    parser.add_argument("--work", type=Path, default=Path("training-work"), help="folder of states and caches")
    parser.add_argument("--processes", type=int, default=2, help="single-thread processes (default 2)")
    parser.add_argument("--steps", type=int, default=0, help="steps of this stage (default: the stage's own)")
    arguments = parser.parse_args()
    STAGES[arguments.stage](arguments)


if __name__ == "__main__":
    main()
