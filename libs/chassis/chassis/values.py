"""How the value of a setting is written in the environment: text to a value of the field's type, and its limits.

Called by `config.py`, which adds the variable's name to what is wrong.
"""

import math
import types
import typing
from pathlib import Path
from typing import Any, Final

_SWITCH: Final = {
    "on": True,
    "true": True,
    "yes": True,
    "1": True,
    "off": False,
    "false": False,
    "no": False,
    "0": False,
}


class ValueInvalid(Exception):
    """The text is not a value of the type, or beyond its limits.

    Attributes: expected, what would have been right; never holds the text itself, which may be secret.
    """

    def __init__(self, expected: str) -> None:
        self.expected = expected
        super().__init__(f"expected {expected}")


def parse(text: str, hint: Any) -> Any:
    """Turn the text into a str, bool, int, float, Path, tuple[X, ...] (comma separated) or X | None."""
    hint = _without_none(hint)
    if typing.get_origin(hint) is tuple:
        return tuple(parse(item.strip(), typing.get_args(hint)[0]) for item in text.split(",") if item.strip())
    if hint is str:
        return text
    if hint is Path:
        return Path(text)
    if hint is bool:
        return _parse_switch(text)
    if hint is int:
        return _parse_whole_number(text)
    if hint is float:
        return _parse_number(text)
    # A mistake of the programmer, not of the person who set the variable.
    raise TypeError(f"a setting cannot have the type {hint!r}")


def check(value: Any, minimum: float | None, maximum: float | None, choices: tuple[str, ...]) -> None:
    """Raise ValueInvalid unless minimum <= value <= maximum and the value (each item of a tuple) is a choice."""
    if (minimum is not None and value < minimum) or (maximum is not None and value > maximum):
        raise ValueInvalid(describe_limits(minimum, maximum))
    for item in value if isinstance(value, tuple) else (value,):
        if choices and item not in choices:
            raise ValueInvalid("one of " + ", ".join(choices))


def describe_limits(minimum: float | None, maximum: float | None) -> str:
    """The limits in words, "" if there are none."""
    if minimum is not None and maximum is not None:
        return f"a number from {minimum} to {maximum}"
    if minimum is not None:
        return f"a number of at least {minimum}"
    return "" if maximum is None else f"a number of at most {maximum}"


def describe_type(hint: Any) -> str:
    """The type in words, as the table of settings shows it."""
    hint = _without_none(hint)
    if typing.get_origin(hint) is tuple:
        return f"list of {describe_type(typing.get_args(hint)[0])}"
    return {str: "text", bool: "on or off", int: "whole number", float: "number", Path: "path"}[hint]


def render(value: Any) -> str:
    """The value as it would be written in the environment."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return ",".join(render(item) for item in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _without_none(hint: Any) -> Any:
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        others = [arg for arg in typing.get_args(hint) if arg is not types.NoneType]
        return others[0] if len(others) == 1 else hint
    return hint


def _parse_switch(text: str) -> bool:
    try:
        return _SWITCH[text.strip().lower()]
    except KeyError:
        raise ValueInvalid("on or off") from None


def _parse_whole_number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueInvalid("a whole number") from None


def _parse_number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise ValueInvalid("a number") from None
    if not math.isfinite(number):
        raise ValueInvalid("a finite number")
    return number
