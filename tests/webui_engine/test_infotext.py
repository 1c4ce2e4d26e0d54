"""The infotext: order and quoting as A1111 writes it, and back."""

import json

import pytest
from webui_engine.infotext import as_parameters, parse, render

# Written by A1111 1.10: what its users have in their files.
FROM_A1111 = (
    "photo of a (dog:1.2), sun\nbehind it\nNegative prompt: blurry, low: quality\n"
    "Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7, Seed: 965400086, Size: 512x768, "
    'Model hash: 6ce0161689, Model: v1-5-pruned-emaonly, ControlNet 0: "Module: canny, Weight: 1.0", Version: v1.10.1'
)


def test_reading_what_a1111_wrote() -> None:
    found = parse(FROM_A1111)
    assert found.prompt == "photo of a (dog:1.2), sun\nbehind it"
    assert found.negative_prompt == "blurry, low: quality"
    assert found.pairs["Sampler"] == "DPM++ 2M"
    assert found.pairs["ControlNet 0"] == "Module: canny, Weight: 1.0"
    assert found.pairs["Version"] == "v1.10.1"


def test_parameters_split_sizes_and_add_defaults() -> None:
    parameters = as_parameters(FROM_A1111)
    assert (parameters["Size-1"], parameters["Size-2"]) == ("512", "768")
    assert parameters["Clip skip"] == "1"
    assert parameters["RNG"] == "GPU"
    assert parameters["Prompt"].startswith("photo")


def test_a_text_without_parameters_is_a_prompt() -> None:
    assert parse("a dog: big, brown").prompt == "a dog: big, brown"


@pytest.mark.parametrize(
    "prompt", ["a dog", "", "two\nlines", 'quote " and: comma,', "Ünïcode 犬", r"back\slash (x:1.2)"]
)
@pytest.mark.parametrize("negative", ["", "bad", "two\nlines: here, too"])
@pytest.mark.parametrize("value", ["plain", 'with "quotes"', "a, b", "x: y", "new\nline", 'all, of: "it" \\ n\n犬'])
def test_what_is_written_is_read_back(prompt: str, negative: str, value: str) -> None:
    pairs = [("Steps", 20), ("Sampler", "Euler a"), ("Size", "64x128"), ("Extra", value), ("Left out", None)]
    found = parse(render(prompt, negative, pairs))
    assert (found.prompt, found.negative_prompt) == (prompt, negative)
    assert dict(found.pairs) == {"Steps": "20", "Sampler": "Euler a", "Size": "64x128", "Extra": value}


def test_values_are_quoted_only_where_needed() -> None:
    line = render("p", "", [("A", "x"), ("B", "x, y"), ("C", 1.5)]).splitlines()[-1]
    assert line == f"A: x, B: {json.dumps('x, y')}, C: 1.5"
