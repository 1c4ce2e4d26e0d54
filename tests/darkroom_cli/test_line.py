"""The words that the demo trains on."""

import pytest
from darkroom_cli.demo.line import surroundings


@pytest.mark.parametrize(
    ("caption", "kept"),
    [
        ("a large green toy on a gray background", "on a gray background"),
        ("a toy at night", "at night"),
        ("a toy", ""),
    ],
)
def test_only_the_surroundings_are_trained_on(caption: str, kept: str) -> None:
    assert surroundings(caption) == kept
