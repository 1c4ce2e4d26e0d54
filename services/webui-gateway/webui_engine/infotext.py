"""The "parameters" text of a picture: written in A1111's order and quoting, and read back.

`generate.py` writes it, `catalogue_routes.py` reads it for png-info. Layout: the prompt, a line "Negative prompt: ..." if
there is one, and a last line of `key: value` pairs.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

_PAIR = re.compile(r'\s*(?P<key>\w[\w \-/]*):\s*(?P<value>"(?:\\.|[^\\"])*"|[^,]*)(?:,|$)')
_SIZE = re.compile(r"(\d+)x(\d+)")
_NEGATIVE: Final = "Negative prompt:"
_MIN_PAIRS: Final = 3
"""The last line counts as parameters only with at least so many pairs; else it belongs to the prompt."""

_DEFAULTS: Final = {"Clip skip": "1", "RNG": "GPU", "Schedule type": "Automatic"}
"""What A1111 adds on reading when a key is missing."""


@dataclass(frozen=True)
class Infotext:
    """A prompt, a negative prompt, and the pairs of the last line in order. Values are text, as they are written."""

    prompt: str
    negative_prompt: str = ""
    pairs: Mapping[str, str] = field(default_factory=dict)


def render(prompt: str, negative_prompt: str, pairs: Sequence[tuple[str, object]]) -> str:
    """The text of one picture. Pairs whose value is None are left out; a pair of key K and value K is written as "K"."""
    line = ", ".join(key if value == key else f"{key}: {quote(value)}" for key, value in pairs if value is not None)
    negative = f"\n{_NEGATIVE} {negative_prompt}" if negative_prompt else ""
    return f"{prompt}{negative}\n{line}".strip()


def quote(value: object) -> str:
    """A value as it stands in the last line: with a comma, newline or colon in it, as a JSON string."""
    text = str(value)
    if any(mark in text for mark in ",\n:"):
        return json.dumps(text, ensure_ascii=False)
    return text


def unquote(text: str) -> str:
    """The reverse of `quote`; text that only looks quoted comes back unchanged."""
    if len(text) < 2 or text[0] != '"' or text[-1] != '"':
        return text
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        return text
    return value if isinstance(value, str) else text


def parse(text: str) -> Infotext:
    """Read what `render` or A1111 wrote. A text without parameters is a prompt."""
    *lines, last = text.strip().split("\n") or [""]
    pairs = {match["key"].strip(): unquote(match["value"].strip()) for match in _PAIR.finditer(last)}
    if len(pairs) < _MIN_PAIRS:
        lines, pairs = [*lines, last], {}
    negative_start = next((n for n, line in enumerate(lines) if line.strip().startswith(_NEGATIVE)), len(lines))
    negative = "\n".join(lines[negative_start:]).strip().removeprefix(_NEGATIVE)
    return Infotext("\n".join(lines[:negative_start]).strip(), negative.strip(), pairs)


def as_parameters(text: str) -> dict[str, str]:
    """The `parameters` object of POST /sdapi/v1/png-info: prompts, pairs, sizes split in two, A1111's defaults."""
    found = parse(text)
    parameters = {"Prompt": found.prompt, "Negative prompt": found.negative_prompt}
    for key, value in found.pairs.items():
        size = _SIZE.fullmatch(value)
        if size:
            parameters |= {f"{key}-1": size[1], f"{key}-2": size[2]}
        else:
            parameters[key] = value
    if found.pairs:
        parameters = {**_DEFAULTS, **parameters}
    return parameters
