"""Record what diffusers' DreamBooth script computes: losses, learning rates and a digest of the final weights.

    python tests/dreambooth/reference/record.py --script PATH_TO/examples/dreambooth/train_dreambooth.py

writes `figures.json` beside this file. Tests compare the trainer's `reference_order` with it, and `bench/plain_loop.py`.

How the figures were made
- The base is the random micro model of `micro_model.py` (two builds of it are bit-equal, which is checked here); the
  images and the arguments of each case are those of `cases.py`.
- The script runs unchanged, once per case, in a process of its own with one thread, in fp32 on the CPU unless the case
  says otherwise. `launch.py` says what is put around it.
- `losses` are what the script logs after each batch, at full precision: with accumulation, several per update.
  `learning_rates` are logged after the schedule's step, so each is the rate of the *next* update.
- `unet` and `text_encoder` are digests (`figures.digest`) of the weights the script saves at the end.
- `plain` is run a second time, and once with two threads; whether they are equal is recorded. With two threads sums are
  split another way, so last digits may change: a comparison bit for bit needs one thread.

The script was that of the tag v0.40.0, the newest at hand, run with the diffusers release named in `made_with`. From
v0.37.0 to v0.40.0 the script changes only in the line `check_min_version(...)`; `sha256_without_version_line` is taken
without that line, so it tells whether a later script is still the same one.

Left out: prior preservation together with `--snr_gamma`, which is defective in
the script (the weights are computed for both halves of the batch and applied to one: it stops with an error at batch 2
and weighs wrongly at batch 1); generated class images (they are drawn beforehand).

When versions change: torch, transformers or diffusers may change last bits without being wrong. Run this again, with
the script of the new release, in an environment with the project's locked versions and the torchvision that belongs to
its torch, and compare the losses with the old ones: they should agree to about six digits. `bench/plain_loop.py` has to
reproduce the new figures bit for bit; if it does not, the script's order changed, and so must the trainer's.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

HERE: Final = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]  # this is a script; its neighbours are no package

import operators  # noqa: E402

operators.declare()  # before diffusers is imported

import cases  # noqa: E402
import figures  # noqa: E402
import micro_model  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

_WEIGHTS: Final = {
    "unet": "unet/diffusion_pytorch_model.safetensors",
    "text_encoder": "text_encoder/model.safetensors",
    "vae": "vae/diffusion_pytorch_model.safetensors",
}


def main() -> None:
    """Run every case and write the figures."""
    parser = argparse.ArgumentParser(description="Record the figures of diffusers' train_dreambooth.py.")
    parser.add_argument(
        "--script", type=Path, required=True, help="examples/dreambooth/train_dreambooth.py of diffusers"
    )
    parser.add_argument("--only", nargs="+", choices=tuple(cases.CASES), help="print these cases and write nothing")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        room = _Room(Path(scratch), chosen.script.resolve())
        found = {name: room.run(name) for name in chosen.only or cases.CASES}
        if chosen.only:
            print(json.dumps(found, indent=1))
            return
        again = room.run("plain") == found["plain"]
        threaded = room.run("plain", threads=2) == found["plain"]
        recorded = {
            "made_with": figures.environment(figures.MADE_WITH),
            "script": _describe(chosen.script),
            "base": room.base_digests(),
            "instance_images": _digest_files(room.instances),
            "class_images": _digest_files(room.class_images),
            "plain_again_is_equal": again,
            "plain_with_two_threads_is_equal": threaded,
            "cases": found,
        }
    figures.FILE.write_text(json.dumps(recorded, indent=1) + "\n")


class _Room:
    """The folders of one recording: base models, images, and one folder per run."""

    def __init__(self, scratch: Path, script: Path) -> None:
        self._scratch = scratch
        self._script = script
        self._count = 0
        self.instances = cases.draw_instances(scratch / "instance")
        self.class_images = cases.draw_class(scratch / "class")
        for kind in ("epsilon", "v_prediction"):
            micro_model.build(scratch / kind, kind)
        self.base_digests()

    def base_digests(self) -> dict[str, str]:
        """A digest of each module of the base; raises SystemExit if the two builds differ."""
        first, second = (self._digests(self._scratch / kind) for kind in ("epsilon", "v_prediction"))
        if first != second:
            raise SystemExit(f"two builds of the micro model differ: {first} and {second}")
        return first

    def run(self, name: str, threads: int = 1) -> dict[str, Any]:
        """Run the script for one case."""
        case = cases.CASES[name]
        self._count += 1
        output = self._scratch / f"run-{self._count}"
        arguments = cases.arguments(case)
        folders = [
            f"--pretrained_model_name_or_path={self._scratch / case.prediction_type}",
            f"--instance_data_dir={self._scratch / 'instance'}",
            f"--output_dir={output}",
            *([f"--class_data_dir={self._scratch / 'class'}"] if "--with_prior_preservation" in case.extra else []),
        ]
        logged = self._launch([*folders, *arguments], threads)
        weights = self._digests(output)
        print(f"{name}: {[line['loss'] for line in logged]}", file=sys.stderr)
        return {
            "arguments": arguments,
            "prediction_type": case.prediction_type,
            "losses": [line["loss"] for line in logged],
            "learning_rates": [line["lr"] for line in logged],
            "unet": weights["unet"],
            "text_encoder": weights["text_encoder"] if "--train_text_encoder" in case.extra else None,
        }

    def _launch(self, arguments: Sequence[str], threads: int) -> list[dict[str, float]]:
        log = self._scratch / f"log-{self._count}.json"
        quiet = {"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1", "CUDA_VISIBLE_DEVICES": ""}
        done = subprocess.run(
            [sys.executable, str(HERE / "launch.py"), str(self._script), str(log), *arguments],
            env={**os.environ, **quiet, "OMP_NUM_THREADS": str(threads)},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise SystemExit(f"the script ended with {done.returncode}:\n{done.stderr[-3000:]}")
        lines: list[dict[str, float]] = json.loads(log.read_text())
        return lines

    def _digests(self, folder: Path) -> dict[str, str]:
        return {name: figures.digest(load_file(folder / file)) for name, file in _WEIGHTS.items()}


def _describe(script: Path) -> dict[str, str]:
    lines = script.read_bytes().splitlines(keepends=True)
    version_line = next(line for line in lines if line.startswith(b"check_min_version("))
    rest = b"".join(line for line in lines if line is not version_line)
    return {
        "version_line": version_line.decode().strip(),
        "sha256": hashlib.sha256(script.read_bytes()).hexdigest(),
        "sha256_without_version_line": hashlib.sha256(rest).hexdigest(),
    }


def _digest_files(files: Sequence[Path]) -> list[str]:
    """One sha256 per image, of its decoded pixels: PNG bytes depend on the compressor."""
    from PIL import Image

    return [hashlib.sha256(Image.open(file).tobytes()).hexdigest() for file in files]


if __name__ == "__main__":
    main()
