"""Long lists in messages: a session may have ten thousand images, and all of them the same mistake."""

from collections.abc import Sequence
from typing import Final

MOST_NAMED: Final = 20


def first_few(items: Sequence[str], rest: str) -> list[str]:
    """The items; of more than MOST_NAMED the first ones and how many others there are: "and 9,980 more <rest>"."""
    left = len(items) - MOST_NAMED
    return [*items] if left <= 0 else [*items[:MOST_NAMED], f"and {left:,} more {rest}"]
