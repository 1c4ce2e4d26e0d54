"""Trains sd15-tiny and controlnet-canny-tiny, stage by stage; every stage resumes from its last saved state.

    python train.py vae|text|latents|unet|controlnet|decoder|save|scores [--work FOLDER] [--processes N] [--steps N]
        [--device cpu|cuda]

Run the stages in this order; `restore` first to go on from the committed weights. A stage with N processes uses N
single-thread processes on the CPU; a GPU takes one: --device cuda --processes 1 (vae, unet, controlnet, decoder).
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch.multiprocessing as multiprocessing


def _vae(arguments: argparse.Namespace) -> None:
    from training import vae

    _train(vae.train, vae.VaeSettings(), arguments)


def _decoder(arguments: argparse.Namespace) -> None:
    from training import vae

    _train(vae.sharpen, vae.VaeSettings(rates=vae.DECODER_RATES, batch_per_process=8), arguments)


def _text(arguments: argparse.Namespace) -> None:
    from training import latents, text

    settings = text.TextSettings()
    text.train(arguments.work, replace(settings, steps=arguments.steps or settings.steps))
    latents.encode_captions(arguments.work)


def _latents(arguments: argparse.Namespace) -> None:
    from training import latents

    multiprocessing.spawn(
        latents.encode_part, (arguments.processes, arguments.work, 0, latents.PICTURES), arguments.processes
    )
    latents.merge_parts(arguments.work, arguments.processes)


def _unet(arguments: argparse.Namespace) -> None:
    from training import unet

    _train(unet.train, unet.UnetSettings(), arguments)


def _controlnet(arguments: argparse.Namespace) -> None:
    from training import controlnet

    _train(controlnet.train, controlnet.ControlNetSettings(), arguments)


def _restore(arguments: argparse.Namespace) -> None:
    from training import restore

    restore.restore(MODELS, arguments.work)


def _save(arguments: argparse.Namespace) -> None:
    from training import publish

    publish.save_all(arguments.work, MODELS)


def _scores(arguments: argparse.Namespace) -> None:
    from training import sheet

    sheet.write(MODELS)


def _train(train: Callable[..., None], settings: Any, arguments: argparse.Namespace) -> None:
    """Runs one training function in `--processes` processes that find each other through a file."""
    if arguments.steps:
        settings = replace(settings, rates=replace(settings.rates, steps=arguments.steps))
    settings = replace(settings, device=arguments.device)
    for stale in arguments.work.glob("*.group"):
        stale.unlink()
    multiprocessing.spawn(train, (arguments.processes, arguments.work, settings), arguments.processes)


MODELS = Path(__file__).resolve().parent
STAGES: dict[str, Callable[[argparse.Namespace], None]] = {
    "restore": _restore,
    "vae": _vae,
    "text": _text,
    "latents": _latents,
    "unet": _unet,
    "controlnet": _controlnet,
    "decoder": _decoder,
    "save": _save,
    "scores": _scores,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=tuple(STAGES))
    parser.add_argument("--work", type=Path, default=Path("training-work"), help="folder of states and caches")
    parser.add_argument("--processes", type=int, default=2, help="single-thread processes (default 2)")
    parser.add_argument("--steps", type=int, default=0, help="steps of this stage (default: the stage's own)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default cpu)")
    arguments = parser.parse_args()
    if arguments.device != "cpu" and arguments.processes != 1:
        parser.error(f"--device {arguments.device} takes --processes 1, found {arguments.processes}")
    arguments.work.mkdir(parents=True, exist_ok=True)
    STAGES[arguments.stage](arguments)


if __name__ == "__main__":
    main()
