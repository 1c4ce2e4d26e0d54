"""Trains blip2-tiny and blip2-itm-tiny, stage by stage; every stage resumes from its last saved state.

    python train_blip2.py pool|vision|language|match|save [--work FOLDER] [--steps N] [--device cpu|cuda]

Run the stages in this order; `save` writes whatever is trained so far. One CPU core takes about an hour for all of it.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

HERE = Path(__file__).resolve().parent
POOL_PICTURES = 20_000
POOL_SEED = 21


def _pool(arguments: argparse.Namespace) -> None:
    from training.blip2_pictures import make_pool

    pictures, labels = make_pool(POOL_PICTURES, POOL_SEED)
    np.save(arguments.work / "pool-pictures.npy", pictures)
    np.save(arguments.work / "pool-labels.npy", labels)


def _vision(arguments: argparse.Namespace) -> None:
    from training import blip2_models, blip2_tokenizers, blip2_vision

    model = blip2_models.build_captioner(blip2_tokenizers.build_opt(arguments.work / "opt-tokenizer"))
    blip2_vision.train(model, arguments.work, _settings(blip2_vision.VisionSettings(), arguments))


def _language(arguments: argparse.Namespace) -> None:
    from training import blip2_language

    blip2_language.train(arguments.work, _settings(blip2_language.LanguageSettings(), arguments))


def _match(arguments: argparse.Namespace) -> None:
    from training import blip2_match

    blip2_match.train(arguments.work, _settings(blip2_match.MatchSettings(), arguments))


def _save(arguments: argparse.Namespace) -> None:
    from training import blip2_publish

    blip2_publish.save_all(arguments.work, HERE)


def _settings(settings, arguments: argparse.Namespace):  # noqa: ANN001, ANN202
    return replace(settings, steps=arguments.steps or settings.steps, device=arguments.device)


STAGES: dict[str, Callable[[argparse.Namespace], None]] = {
    "pool": _pool,
    "vision": _vision,
    "language": _language,
    "match": _match,
    "save": _save,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=tuple(STAGES))
    parser.add_argument("--work", type=Path, default=Path("training-work"), help="folder of states and caches")
    parser.add_argument("--steps", type=int, default=0, help="steps of this stage (default: the stage's own)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.work.mkdir(parents=True, exist_ok=True)
    STAGES[arguments.stage](arguments)


if __name__ == "__main__":
    main()
