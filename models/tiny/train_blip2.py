"""Trains blip2-tiny and blip2-itm-tiny, stage by stage; every stage resumes from its last saved state.

    python train_blip2.py pool|vision|language|join|match|save|scores [--work FOLDER] [--steps N] [--device cpu|cuda]

Run the stages in this order; `save` writes whatever is trained so far. `restore` instead of `vision` and `language`
goes on from the committed weights. One CPU core takes about an hour for all of it.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).resolve().parent
POOL_PICTURES = 20_000
POOL_SEED = 21


def _pool(arguments: argparse.Namespace) -> None:
    from training.blip2_pictures import make_pool, save_pool

    save_pool(make_pool(POOL_PICTURES, POOL_SEED), arguments.work)


def _vision(arguments: argparse.Namespace) -> None:
    from training import blip2_vision

    blip2_vision.train(arguments.work, _settings(blip2_vision.VisionSettings(), arguments))


def _language(arguments: argparse.Namespace) -> None:
    from training import blip2_language

    blip2_language.train(arguments.work, _settings(blip2_language.LanguageSettings(), arguments))


def _join(arguments: argparse.Namespace) -> None:
    from training import blip2_join

    blip2_join.train(arguments.work, _settings(blip2_join.JoinSettings(), arguments))


def _match(arguments: argparse.Namespace) -> None:
    from training import blip2_match

    blip2_match.train(arguments.work, _settings(blip2_match.MatchSettings(), arguments))


def _restore(arguments: argparse.Namespace) -> None:
    from training import restore

    restore.restore_blip2(HERE, arguments.work)


def _save(arguments: argparse.Namespace) -> None:
    from training import blip2_publish

    blip2_publish.save_all(arguments.work, HERE)


def _scores(_: argparse.Namespace) -> None:
    import blip2_scores
    from training import scores_file

    scores_file.keep(HERE, "blip2-tiny", blip2_scores.scores())


def _settings(settings: Any, arguments: argparse.Namespace) -> Any:
    return replace(settings, steps=arguments.steps or settings.steps, device=arguments.device)


STAGES: dict[str, Callable[[argparse.Namespace], None]] = {
    "pool": _pool,
    "restore": _restore,
    "vision": _vision,
    "language": _language,
    "join": _join,
    "match": _match,
    "save": _save,
    "scores": _scores,
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
