"""blip2-tiny and blip2-itm-tiny: the committed folders, loaded as anyone loads them, keep their scores."""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import blip2_scores as scores
import pytest
import torch
from drawing.subject import PIP, take
from training.blip2_pictures import random_picture

MEGABYTES = 9


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def measured() -> dict[str, Any]:
    return scores.scores(48)


@pytest.mark.parametrize("part", ["shape", "colour", "size", "background"])
def test_captions_of_unseen_scenes_name_what_is_there(measured: dict[str, Any], part: str) -> None:
    assert measured["caption"][part] >= 0.95  # at most two of 48 wrong


def test_a_caption_needs_no_prompt(measured: dict[str, Any]) -> None:
    assert min(measured["caption_without_prompt"].values()) >= 0.9


@pytest.mark.parametrize(
    "kind",
    [
        "colour",
        "shape",
        "background",
        "size",
        "is there",
    ],
)
def test_questions_about_unseen_scenes_are_answered(measured: dict[str, Any], kind: str) -> None:
    assert measured["answer"][kind] >= 0.95


def test_retrieval_finds_the_picture_among_sixteen(measured: dict[str, Any]) -> None:
    assert measured["retrieval_top1_of_16"] >= 0.9


def test_matching_tells_the_true_caption_from_one_wrong_word(measured: dict[str, Any]) -> None:
    assert measured["match"]["true caption"] >= 0.9
    assert measured["match"]["near miss"] >= 0.9


def test_committed_scores_meet_the_goals(tiny_models: Path) -> None:
    found = json.loads((tiny_models / "scores.json").read_text())["blip2-tiny"]
    assert found["scenes"] >= 400
    assert set(found["caption"]) == {"shape", "colour", "size", "background"}
    assert set(found["answer"]) == {"shape", "colour", "size", "background", "is there"}
    assert min(*found["caption"].values(), *found["answer"].values()) >= 0.95
    assert min(found["retrieval_top1_of_16"], *found["match"].values()) >= 0.9


def _pictures(count: int) -> list:
    return [scores.draw(scene) for scene in scores.unseen(count, "test")]


def test_generation_stops_by_the_newline() -> None:
    processor, model = scores.captioner()
    inputs = processor(images=_pictures(4), text=["a photo of"] * 4, return_tensors="pt")
    new = model.generate(**inputs, max_new_tokens=60, do_sample=False)[:, inputs["input_ids"].shape[1] :]
    newline = processor.tokenizer.convert_tokens_to_ids("Ċ")
    assert model.language_model.generation_config.eos_token_id == newline
    assert new.shape[1] < 30
    for row in new.tolist():
        assert newline in row
        assert set(row[row.index(newline) + 1 :]) <= {processor.tokenizer.pad_token_id}


@pytest.mark.parametrize("beams", [1, 5])
def test_a_batch_padded_on_the_left_equals_single_calls(beams: int) -> None:
    processor, model = scores.captioner()
    pictures = _pictures(4)
    prompts = ["a photo of", "", "Question: what colour is the object? Answer:", "Question: is there a star? Answer:"]

    def tokens(images: list, texts: list[str]) -> list[list[int]]:
        inputs = processor(images=images, text=texts, padding=True, padding_side="left", return_tensors="pt")
        ids = model.generate(**inputs, max_new_tokens=20, num_beams=beams, do_sample=False)
        rows = ids[:, inputs["input_ids"].shape[1] :].tolist()
        newline = processor.tokenizer.encode("\n", add_special_tokens=False)[0]
        return [row[: row.index(newline)] if newline in row else row for row in rows]

    assert tokens(pictures, prompts) == [tokens([i], [t])[0] for i, t in zip(pictures, prompts, strict=True)]


def test_another_picture_gives_another_caption() -> None:
    red = scores.Scene("circle", "red", "small", "left", "gray")
    blue = scores.Scene("star", "blue", "large", "right", "bricks")
    first, second = scores.generated([scores.draw(red), scores.draw(blue)], ["a photo of"] * 2)
    assert "red circle" in first
    assert "blue star" in second


def test_a_photo_of_an_unknown_creature_is_called_a_toy_on_its_background() -> None:
    photos = [photo for photo in PIP.photos if photo.background in ("gray", "beige", "black")]
    for photo, text in zip(photos, scores.generated([take(p) for p in photos], ["a photo of"] * 3), strict=True):
        assert scores.told_backgrounds(text) == [photo.background], text
        assert "green" in text, text  # teal is nearest to it


def test_processors_fit_their_models() -> None:
    for processor, model in (scores.captioner(), scores.matcher()):
        config = model.config
        assert processor.num_query_tokens == config.num_query_tokens
        assert processor.tokenizer.convert_tokens_to_ids("<image>") == config.image_token_index
        size = processor.image_processor.size
        assert (size["height"], size["width"]) == (config.vision_config.image_size,) * 2
        assert model.dtype == torch.float32
        spread = model.query_tokens[0].std(dim=0).mean()
        assert spread > 0.1  # query tokens that are all alike make a model that sees nothing


@pytest.mark.parametrize("name", ["blip2-tiny", "blip2-itm-tiny"])
def test_a_folder_stays_small(name: str, tiny_models: Path) -> None:
    assert sum(file.stat().st_size for file in (tiny_models / name).iterdir()) <= MEGABYTES * 1_000_000


def test_a_training_picture_is_reproducible_and_never_held_out() -> None:
    first, fact, cover = random_picture(random.Random("7/3"))
    again, same_fact, same_cover = random_picture(random.Random("7/3"))
    assert (first == again).all()
    assert fact == same_fact
    assert (cover == same_cover).all()
    assert cover.max() > 0
