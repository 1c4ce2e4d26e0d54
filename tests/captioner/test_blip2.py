"""The generation model: batches equal single requests, and folders that would answer wrongly are refused."""

import asyncio
import json
import shutil
from pathlib import Path

import pytest
from captioner.batching import Entry
from captioner.blip2 import GenerationModel
from captioner.errors import ModelUnusable
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


def test_other_architecture_is_refused(tiny_models: Path) -> None:
    with pytest.raises(ModelUnusable, match="Blip2ForImageTextRetrieval"):
        GenerationModel(tiny_models / "blip2-itm-tiny", "cpu", "fp32")


def test_folder_without_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelUnusable, match=r"config\.json"):
        GenerationModel(tmp_path, "cpu", "fp32")
