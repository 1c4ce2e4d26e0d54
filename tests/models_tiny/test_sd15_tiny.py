"""sd15-tiny draws what it is asked for and follows edges, judged by plain computer vision on scenes it never saw."""

import json
from pathlib import Path

import pytest
from diffusers import StableDiffusionPipeline
from drawing import edges, scenes
from safetensors import safe_open
from training import scores

STEPS = 15
SEED = 500


@pytest.fixture(scope="module")
def pipeline(tiny_models: Path) -> StableDiffusionPipeline:
    return scores.load(tiny_models / "sd15-tiny")


def test_pictures_show_the_asked_shape_colour_and_background(pipeline: StableDiffusionPipeline) -> None:
    wanted = scores.held_out(24, SEED)
    pictures = scores.generate(pipeline, [scenes.captions(s)[0] for s in wanted], SEED, STEPS)
    found = scores.txt2img_scores(pictures, wanted)
    assert all(picture.size == (64, 64) for picture in pictures)
    assert min(found["shape"], found["colour"], found["background"]) >= 0.95, found  # at most one of 24 wrong


def test_edges_are_followed(pipeline: StableDiffusionPipeline, tiny_models: Path) -> None:
    wanted = scores.held_out(12, SEED + 1)
    prompts = [scenes.captions(scene)[0] for scene in wanted]
    maps = [edges.canny(scenes.draw(scene)) for scene in wanted]
    free = scores.edge_agreement(scores.generate(pipeline, prompts, SEED, STEPS), maps)
    controlled = scores.with_controlnet(pipeline, tiny_models / "controlnet-canny-tiny")
    guided = scores.edge_agreement(scores.guide(controlled, prompts, maps, SEED, STEPS), maps)
    assert guided > free + 0.2, (guided, free)


def test_text_encoder_has_the_names_of_published_folders(tiny_models: Path) -> None:
    with safe_open(tiny_models / "sd15-tiny" / "text_encoder" / "model.safetensors", "pt") as file:
        assert all(name.startswith("text_model.") for name in file.keys())  # noqa: SIM118 - not a dict


def test_every_text_has_tokens_and_sks_is_one(pipeline: StableDiffusionPipeline) -> None:
    tokens = pipeline.tokenizer
    assert len(tokens("sks").input_ids) == 3
    assert len(tokens("a photo of sks toy").input_ids) == 7
    text = "zebra Ünï 你好!"
    assert tokens.unk_token_id not in tokens(text).input_ids[1:-1]


def test_committed_scores_meet_the_goals(tiny_models: Path) -> None:
    found = json.loads((tiny_models / "scores.json").read_text())["sd15-tiny"]
    assert min(found["txt2img_shape"], found["txt2img_colour"], found["txt2img_background"]) >= 0.95
    assert found["canny_iou_guided"] > found["canny_iou_unguided"] + 0.2


def test_weights_are_small(tiny_models: Path) -> None:
    total = sum(file.stat().st_size for file in tiny_models.rglob("*.safetensors"))
    assert total <= 64 * 2**20
