import json
from collections.abc import Callable
from typing import Any

import pytest
from dreambooth.prompts import prompt_of, words_of
from dreambooth.recipe import parse


@pytest.mark.parametrize(
    ("filename", "words"),
    [
        ("sks_toy (12).png", "sks toy"),
        ("sks-toy.png", "skstoy"),
        ("a photo of sks robot 3.JPEG", "a photo of sks robot"),
        ("my.holiday_2.png", "my.holiday"),
        ("001.png", ""),
        ("(1)-2.webp", ""),
        ("  red_  toy_.png", "red toy"),
    ],
)
def test_file_name_loses_digits_brackets_and_hyphens(filename: str, words: str) -> None:
    assert words_of(filename) == words


@pytest.mark.parametrize(
    ("settings", "caption", "prompt"),
    [
        ({}, "a toy on grass", "sks toy"),
        ({"use_captions": True}, "a toy on grass", "sks toy a toy on grass"),
        ({"use_captions": True}, None, "sks toy"),
        ({"instance_prompt": "a photo of sks robot"}, "on grass", "a photo of sks robot"),
        ({"instance_prompt": "sks robot", "use_captions": True}, " on\n grass ", "sks robot on grass"),
    ],
)
def test_prompt_is_name_or_instance_prompt_then_caption(
    order: Callable[..., dict[str, Any]], settings: dict[str, Any], caption: str | None, prompt: str
) -> None:
    recipe = parse(json.dumps(order(**settings)))
    assert prompt_of("sks_toy (1).png", caption, recipe) == prompt
