"""The generation model: batches equal single requests, and folders that would answer wrongly are refused."""

import asyncio
import json
import shutil
from pathlib import Path

import pytest
import torch
from captioner.batching import Entry
from captioner.blip2 import GenerationModel
from captioner.errors import ModelUnusable, PromptUnusable
from captioner.generation import Row, Settings, Text

from tests.captioner.conftest import scene

PROMPTS = ["a photo of", "", "Question: what colour is the object? Answer:", "a"]
COLOURS = ["red", "blue", "green", "yellow"]


def generate(model: GenerationModel, rows: list[Row]) -> list[Text]:
    async def run() -> list[Text]:
        loop = asyncio.get_running_loop()
        return model.generate([Entry(row, 0, loop.create_future()) for row in rows])

    return asyncio.run(run())


def rows(model: GenerationModel, settings: list[Settings]) -> list[Row]:
    pixels = [model.prepare(scene(colour)) for colour in COLOURS]
    return [Row(*row) for row in zip(pixels, PROMPTS, settings, strict=True)]


@pytest.mark.parametrize("num_beams", [1, 5])
def test_a_batch_answers_what_single_requests_answer(generation_model: GenerationModel, num_beams: int) -> None:
    batch = rows(generation_model, [Settings(num_beams=num_beams)] * 4)
    assert generate(generation_model, batch) == [generate(generation_model, [row])[0] for row in batch]


def test_sampling_does_not_depend_on_batch_mates(generation_model: GenerationModel) -> None:
    settings = [Settings(temperature=1.5, seed=seed, top_p=0.95) for seed in (1, 2, 3)] + [Settings()]
    batch = rows(generation_model, settings)
    together = generate(generation_model, batch)
    assert together == [generate(generation_model, [row])[0] for row in batch]
    assert together[::-1] == generate(generation_model, batch[::-1])


def test_token_limits_count_new_tokens_only(generation_model: GenerationModel) -> None:
    row = rows(generation_model, [Settings(max_new_tokens=2, min_new_tokens=2)] * 4)[0]
    text = generate(generation_model, [row])[0]
    assert text.num_tokens == 2
    assert text.truncated


def test_the_prompt_is_not_part_of_the_answer(generation_model: GenerationModel) -> None:
    text = generate(generation_model, rows(generation_model, [Settings()] * 4))[2].text
    assert "Question" not in text
    assert "Answer" not in text


def test_a_prompt_that_would_move_the_image_tokens_is_refused(generation_model: GenerationModel) -> None:
    with pytest.raises(PromptUnusable, match="<image>"):
        generation_model.check_prompt("a photo of <image>", Settings())


def test_what_does_not_fit_the_positions_is_refused(generation_model: GenerationModel) -> None:
    row = rows(generation_model, [Settings()] * 4)[0]
    num_prompt = len(generation_model._processor.tokenizer(row.prompt)["input_ids"])
    room = generation_model.max_positions - generation_model.num_query_tokens - num_prompt
    longest = Settings(min_new_tokens=room, max_new_tokens=room)
    generation_model.check_prompt(row.prompt, longest)
    assert generate(generation_model, [Row(row.pixels, row.prompt, longest)])[0].num_tokens == room
    with pytest.raises(PromptUnusable, match=f"has {generation_model.max_positions} positions"):
        generation_model.check_prompt(row.prompt, Settings(max_new_tokens=room + 1))


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.fixture
def folder(tiny_models: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_models / "blip2-tiny", tmp_path / "blip2"))


def test_processor_without_query_tokens_is_refused(folder: Path) -> None:
    edit(folder / "processor_config.json", num_query_tokens=None)
    with pytest.raises(ModelUnusable, match="num_query_tokens"):
        GenerationModel(folder, "cpu", "fp32")


def test_wrong_image_token_is_refused(folder: Path) -> None:
    edit(folder / "config.json", image_token_index=1)
    with pytest.raises(ModelUnusable, match="<image>"):
        GenerationModel(folder, "cpu", "fp32")


def test_encoder_decoder_language_model_is_refused(folder: Path) -> None:
    edit(folder / "config.json", use_decoder_only_language_model=False)
    with pytest.raises(ModelUnusable, match="encoder-decoder"):
        GenerationModel(folder, "cpu", "fp32")


@pytest.mark.parametrize("device", ["cuda", "cuda:0"])
def test_a_gpu_that_is_not_there_is_an_error(tiny_models: Path, monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=f"DARKROOM_DEVICE is '{device}', but torch finds no CUDA device"):
        GenerationModel(tiny_models / "blip2-tiny", device, "fp32")


def test_settings_are_the_requests_whatever_the_checkpoint_says(
    folder: Path, generation_model: GenerationModel
) -> None:
    edit(folder / "generation_config.json", min_length=60, min_new_tokens=25, num_beams=3, early_stopping=True)
    other = GenerationModel(folder, "cpu", "fp32")
    for settings in (Settings(), Settings(num_beams=5)):
        row = rows(generation_model, [settings] * 4)[0]
        assert generate(other, [row]) == generate(generation_model, [row])


def test_other_architecture_is_refused(tiny_models: Path) -> None:
    with pytest.raises(ModelUnusable, match="Blip2ForImageTextRetrieval"):
        GenerationModel(tiny_models / "blip2-itm-tiny", "cpu", "fp32")


def test_folder_without_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelUnusable, match=r"config\.json"):
        GenerationModel(tmp_path, "cpu", "fp32")
