"""Typed values out of a JSON object, every mistake noted; `recipe` reads DARKROOM_RECIPE with it."""

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

T = TypeVar("T")


class Reader:
    """Takes values out of one JSON object. After a mistake the default stands in, so that all mistakes are found.

    problems: one sentence for each mistake, beginning with the field's name; shared by the readers of nested objects.
    """

    def __init__(self, order: Mapping[str, Any], known: set[str], prefix: str = "") -> None:
        self._order = order
        self._prefix = prefix
        self.problems = [
            f"{prefix}{name}: unknown field, expected one of {sorted(known)}" for name in order if name not in known
        ]

    def has(self, name: str) -> bool:
        """Whether the field is there and not null."""
        return self._order.get(name) is not None

    def text(self, name: str, *, required: bool = False, longest: int) -> str:
        """A string; "" if it is absent."""
        value = self._order.get(name, "")
        if not isinstance(value, str) or len(value) > longest:
            self._wrong(name, value, f"a string of at most {longest} characters")
            return ""
        if required and not value.strip():
            self.problems.append(f"{self._prefix}{name} is missing")
        return str(value)

    def texts(self, name: str, *, most: int, longest: int) -> tuple[str, ...]:
        """An array of strings that are not empty."""
        value = self._order.get(name, [])
        good = isinstance(value, list) and all(isinstance(item, str) and 0 < len(item) <= longest for item in value)
        if not good or len(value) > most:
            self._wrong(name, value, f"at most {most} strings of 1 to {longest} characters")
            return ()
        return tuple(value)

    def integer(self, name: str, default: int, least: int, most: int) -> int:
        """A whole number within the limits."""
        value = self._order.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            self._wrong(name, value, f"a whole number from {least} to {most}")
            return default
        return value

    def number(self, name: str, default: float, least: float, most: float, *, above: bool = False) -> float:
        """A finite number within the limits. above: `least` itself is too little."""
        value = self._order.get(name, default)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        # Compared before it becomes a float: a whole number of JSON may be too large for one.
        if not is_number or not least <= value <= most or (above and value == least) or not math.isfinite(value):
            self._wrong(name, value, f"a number {'above' if above else 'from'} {least:g} to {most:g}")
            return default
        return float(value)

    def choice(self, name: str, allowed: tuple[str, ...]) -> str:
        """One of the words; the first is the default."""
        value = self._order.get(name, allowed[0])
        if value not in allowed:
            self._wrong(name, value, f"one of {', '.join(allowed)}")
            return allowed[0]
        return str(value)

    def flag(self, name: str) -> bool:
        """true or false; false if it is absent."""
        value = self._order.get(name, False)
        if not isinstance(value, bool):
            self._wrong(name, value, "true or false")
            return False
        return value

    def nested(self, name: str, known: set[str], read: Callable[["Reader"], T], default: T) -> T:
        """A nested object, read by `read`; the default if it is absent or null."""
        value = self._order.get(name)
        if value is None:
            return default
        if not isinstance(value, dict):
            self._wrong(name, value, f"an object with {sorted(known)}")
            return default
        inner = Reader(value, known, f"{self._prefix}{name}.")
        result = read(inner)
        self.problems += inner.problems
        return result

    def _wrong(self, name: str, value: Any, expected: str) -> None:
        self.problems.append(f"{self._prefix}{name} is {_shown(value)}: expected {expected}")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
