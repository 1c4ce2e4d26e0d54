"""Run diffusers' training script as it is, in this process, and write down what it logs.

    python launch.py SCRIPT OUTPUT.json ARGUMENTS...

Two things around the script are changed, neither of which draws a random number or computes anything: `Path.iterdir`
answers in the order of names (the script takes images in the folder's own, accidental order), and `Accelerator.log`
keeps the values it is given, at full precision, instead of handing them to a tracker (none is started). `operators.py`
says why it is called.
"""

import json
import os
import pathlib
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import operators
import torch

operators.declare()

from accelerate import Accelerator  # noqa: E402, torchvision has to be importable first


def main() -> None:
    """Run the script; its own errors end this process."""
    script, output, *arguments = sys.argv[1:]
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    logged: list[dict[str, float]] = []
    _sort_folders()
    _keep_logs(logged)
    sys.argv = [script, *arguments]
    runpy.run_path(script, run_name="__main__")
    Path(output).write_text(json.dumps(logged))


def _sort_folders() -> None:
    own = pathlib.Path.iterdir

    def iterdir(folder: Path) -> Iterator[Path]:
        return iter(sorted(own(folder)))

    pathlib.Path.iterdir = iterdir


def _keep_logs(logged: list[dict[str, float]]) -> None:
    def log(_: Accelerator, values: dict[str, float], step: int | None = None, **__: Any) -> None:
        logged.append({"step": int(step or 0), "loss": values["loss"], "lr": values["lr"]})

    Accelerator.log = log
    Accelerator.init_trackers = lambda *_, **__: None


if __name__ == "__main__":
    main()
