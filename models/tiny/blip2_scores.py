"""Scores of blip2-tiny and blip2-itm-tiny on unseen scenes, through the folders as anyone loads them.

    python blip2_scores.py [COUNT]

`bench/tiny.py` and the tests call `scores`.
"""

import json
import random
import sys
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from drawing.scenes import (
    BACKGROUND_PHRASES,
    BACKGROUNDS,
    COLOURS,
    SHAPES,
    SIZES,
    Scene,
    captions,
    draw,
    questions,
    random_scene,
    with_article,
)
from PIL import Image
from transformers import Blip2ForConditionalGeneration, Blip2ForImageTextRetrieval, Blip2Processor

HERE = Path(__file__).resolve().parent
GROUP = 16  # pictures among which retrieval finds the one that a caption describes
BATCH = 32


@lru_cache(maxsize=1)
def captioner(folder: Path = HERE / "blip2-tiny") -> tuple[Any, Any]:
    """Processor and model in fp32."""
    model = Blip2ForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    return Blip2Processor.from_pretrained(folder), model


@lru_cache(maxsize=1)
def matcher(folder: Path = HERE / "blip2-itm-tiny") -> tuple[Any, Any]:
    model = Blip2ForImageTextRetrieval.from_pretrained(folder, dtype=torch.float32).eval()
    return Blip2Processor.from_pretrained(folder), model


def unseen(count: int, seed: str) -> list[Scene]:
    rng = random.Random(seed)
    return [random_scene(rng, held_out=True) for _ in range(count)]


def _batches(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    return (items[first : first + BATCH] for first in range(0, len(items), BATCH))


@torch.inference_mode()
def generated(pictures: Sequence[Image.Image], prompts: Sequence[str]) -> list[str]:
    """The greedy continuation of each prompt, without the prompt."""
    processor, model = captioner()
    texts: list[str] = []
    for batch in _batches(list(zip(pictures, prompts, strict=True))):
        inputs = processor(
            images=[picture for picture, _ in batch],
            text=[prompt for _, prompt in batch],
            padding=True,
            padding_side="left",
            return_tensors="pt",
        )
        ids = model.generate(**inputs, max_new_tokens=24, do_sample=False)[:, inputs["input_ids"].shape[1] :]
        texts += [text.strip() for text in processor.batch_decode(ids, skip_special_tokens=True)]
    return texts


def told(text: str, values: Sequence[str]) -> list[str]:
    """The values whose word occurs in the text."""
    words = text.replace(",", " ").split()
    return [value for value in values if value in words]


def told_backgrounds(text: str) -> list[str]:
    return [name for name in BACKGROUNDS if any(phrase in text for phrase in BACKGROUND_PHRASES[name])]


def caption_scores(scenes: Sequence[Scene], prompt: str = "a photo of") -> dict[str, float]:
    """Share of captions that name exactly the right shape, colour, size and background."""
    texts = generated([draw(scene) for scene in scenes], [prompt] * len(scenes))
    right = {
        "shape": [told(t, SHAPES) == [s.shape] for s, t in zip(scenes, texts, strict=True)],
        "colour": [told(t.split(" on ")[0], tuple(COLOURS)) == [s.colour] for s, t in zip(scenes, texts, strict=True)],
        "size": [told(t, tuple(SIZES)) == [s.size] for s, t in zip(scenes, texts, strict=True)],
        "background": [told_backgrounds(t) == [s.background] for s, t in zip(scenes, texts, strict=True)],
    }
    return {name: sum(values) / len(values) for name, values in right.items()}


def answer_scores(scenes: Sequence[Scene]) -> dict[str, float]:
    """Share of right answers by kind of question; the answer must be the very word."""
    rng = random.Random("questions")
    asked = [(draw(scene), kind, *pair) for scene in scenes for kind, pair in _questions(scene, rng)]
    answers = generated([a[0] for a in asked], [f"Question: {a[2]} Answer:" for a in asked])
    right: dict[str, list[bool]] = {}
    for (_, kind, _, expected), answer in zip(asked, answers, strict=True):
        right.setdefault(kind, []).append(answer == expected)
    return {kind: sum(values) / len(values) for kind, values in right.items()}


def _questions(scene: Scene, rng: random.Random) -> list[tuple[str, tuple[str, str]]]:
    kinds = ("colour", "shape", "background", "size", *("is there",) * 4)
    return list(zip(kinds, questions(scene, rng), strict=True))


@torch.inference_mode()
def retrieval_score(groups: int) -> float:
    """Share of captions for which ITC ranks their picture first among 16 pictures with different captions."""
    processor, model = matcher()
    right = 0
    for number in range(groups):
        scenes = list({captions(s)[0]: s for s in unseen(4 * GROUP, f"retrieval/{number}")}.values())[:GROUP]
        inputs = processor(
            images=[draw(scene) for scene in scenes],
            text=[captions(scene)[0] for scene in scenes],
            padding=True,
            return_tensors="pt",
        )
        logits = model(**inputs).logits_per_text
        right += int((logits.argmax(dim=1) == torch.arange(GROUP)).sum())
    return right / (groups * GROUP)


@torch.inference_mode()
def match_scores(scenes: Sequence[Scene]) -> dict[str, float]:
    """Share of right ITM decisions on the true caption and on captions with one wrong word."""
    processor, model = matcher()
    rng = random.Random("near misses")
    pairs = [(draw(s), text, truth) for s in scenes for text, truth in ((captions(s)[0], 1), (_near_miss(s, rng), 0))]
    right: dict[int, list[bool]] = {0: [], 1: []}
    for batch in _batches(pairs):
        inputs = processor(images=[p[0] for p in batch], text=[p[1] for p in batch], padding=True, return_tensors="pt")
        decisions = model(**inputs, use_image_text_matching_head=True).logits_per_image.argmax(dim=1)
        for (_, _, truth), decision in zip(batch, decisions.tolist(), strict=True):
            right[truth].append(decision == truth)
    return {"true caption": sum(right[1]) / len(right[1]), "near miss": sum(right[0]) / len(right[0])}


def _near_miss(scene: Scene, rng: random.Random) -> str:
    names = {"shape": SHAPES, "colour": tuple(COLOURS), "size": tuple(SIZES), "background": BACKGROUNDS}
    wrong = {name: getattr(scene, name) for name in names}
    name = rng.choice(tuple(names))
    wrong[name] = rng.choice([value for value in names[name] if value != wrong[name]])
    object_ = with_article(f"{wrong['size']} {wrong['colour']} {wrong['shape']}")
    return f"{object_} {BACKGROUND_PHRASES[wrong['background']][0]}"


def scores(count: int = 400) -> dict[str, Any]:
    """All scores in 0 .. 1; `count` unseen scenes for captions and ITM, a quarter of it for each question and for
    groups of 16 pictures in retrieval, one group per 16 scenes.
    """
    scenes = unseen(count, "scores")
    return {
        "scenes": count,
        "caption": caption_scores(scenes),
        "caption_without_prompt": caption_scores(scenes[: max(1, count // 4)], prompt=""),
        "answer": answer_scores(scenes[: max(1, count // 2)]),
        "retrieval_top1_of_16": retrieval_score(max(1, count // GROUP)),
        "match": match_scores(scenes),
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(scores(int(sys.argv[1]) if len(sys.argv) > 1 else 400), indent=2))
