from pathlib import Path

import pytest
import torch
from dreambooth import base_model, parts, text
from dreambooth.parts import Parts


@pytest.fixture(scope="module")
def model(micro: Path) -> Parts:
    return parts.load(base_model.describe("micro", micro), torch.device("cpu"))


def test_states_of_many_prompts_stay_within_their_size_and_keep_their_bits(
    model: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = text.FrozenStates(model)
    one = whole.of(["a"]).nbytes
    monkeypatch.setattr(text, "MAX_CACHE_BYTES", 3 * one)
    small = text.FrozenStates(model)
    prompts = ["a", "b", "c", "d", "e"]
    for _ in range(2):
        assert torch.equal(small.of(prompts), whole.of(prompts))
        assert [*small._known] == ["c", "d", "e"]
    small.of(["c"])
    small.of(["f"])
    assert [*small._known] == ["e", "c", "f"]


def test_many_long_prompts_are_told_of_in_a_few_words(model: Parts) -> None:
    said: list[str] = []
    text.warn_about_length(model, [f"{'toy ' * 20} {number}" for number in range(30)], said.append)
    assert len(said) == 21
    assert "the text encoder reads 16; its end is ignored" in said[19]
    assert said[20] == "and 10 more prompts are too long"
