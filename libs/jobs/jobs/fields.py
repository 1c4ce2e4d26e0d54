"""Typed values out of a mapping of a YAML document, every mistake noted; `execution_file` and `recipe_file` read with it.

After a mistake the default stands in, so that the reading goes on and finds the others. A field that is null or "" counts
as not given, as values of a chart have it, but for the few whose null says something (`integer_or_null`).
"""

import difflib
import math
import re
from collections.abc import Collection, Mapping
from typing import Any

_QUANTITY = re.compile(r"\d+(\.\d+)?(m|k|Ki|M|Mi|G|Gi|T|Ti)?")
_MAX_SHOWN = 60


class Fields:
    """One mapping. path: where it is in the document, "" for all of it. problems: pairs of path and text, shared by all parts.

    known: names it may have, in lowerCamelCase. snake: each may also be spelled in snake_case, as protobuf's JSON reads it.
    """

    def __init__(
        self, value: Any, path: str, known: Collection[str], problems: list[tuple[str, str]], snake: bool = False
    ) -> None:
        self.path = path
        self.problems = problems
        self._snake = snake
        self._keys: dict[str, str] = {}  # as they are known, and as they are spelled
        self._values: dict[str, Any] = {}
        if not isinstance(value, Mapping):
            self.problem("", f"is {shown(value)}: expected fields, such as {', '.join(sorted(known)[:3])}")
            return
        spellings = {name: name for name in known}
        if snake:
            spellings |= {to_snake(name): name for name in known}
        for key, content in value.items():
            name = spellings.get(key) if isinstance(key, str) else None
            where = f"{path}.{key}" if path else str(key)
            if name is None:
                hint = _nearest(str(key), spellings) or f"; known are {', '.join(sorted(known))}"
                problems.append((where, f"is unknown{hint}"))
            elif name in self._keys:
                problems.append((where, f"is given twice, also as {self._keys[name]}: keep one"))
            else:
                self._keys[name] = str(key)
                self._values[name] = content

    def problem(self, name: str, text: str) -> None:
        """Note a mistake of the field, or of the whole mapping with name ""."""
        self.problems.append((self.at(name), text))

    def at(self, name: str) -> str:
        """The path of a field, spelled as in the document."""
        key = self._keys.get(name, to_snake(name) if self._snake and any("_" in key for key in self._keys) else name)
        return ".".join(part for part in (self.path, key) if part)

    def has(self, name: str) -> bool:
        """Whether the field is given."""
        return self._values.get(name) not in (None, "")

    def value(self, name: str) -> Any:
        """What is given, None if nothing is."""
        return self._values[name] if self.has(name) else None

    def missing(self, name: str, expected: str) -> None:
        """Note that a required field is not given."""
        self.problem(name, f"is missing: expected {expected}")

    def text(self, name: str, default: str = "", *, pattern: str = r"[\s\S]*", expected: str = "a text") -> str:
        """A string that the pattern describes as a whole."""
        value = self.value(name)
        if value is None:
            return default
        if not isinstance(value, str):
            self._wrong(
                name, value, f"{expected}; put it in quotes" if isinstance(value, bool | int | float) else expected
            )
            return default
        if not re.fullmatch(pattern, value):
            self._wrong(name, value, expected)
            return default
        return value

    def integer(self, name: str, default: int, least: int, most: int) -> int:
        """A whole number within the limits; JSON of protobuf writes long ones as strings."""
        value = self.value(name)
        if value is None:
            return default
        if isinstance(value, str) and self._snake and re.fullmatch(r"-?\d{1,20}", value):
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            self._wrong(name, value, f"a whole number from {least} to {most}")
            return default
        return value

    def integer_or_null(self, name: str, default: int | None, least: int, most: int) -> int | None:
        """A whole number within the limits, or None where null is written; the default only where the field is left out or ""."""
        if name in self._values and self._values[name] is None:
            return None
        value = self.integer(name, least, least, most)
        return value if self.has(name) else default

    def number(self, name: str, default: float, least: float, most: float, above: bool = False) -> float:
        """A finite number within the limits. above: `least` itself is too little."""
        value = self.value(name)
        if value is None:
            return default
        good = isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most
        # NaN is not within any limits.
        if not good or (above and value == least):
            self._wrong(name, value, f"a number {'above' if above else 'from'} {least:g} to {most:g}")
            return default
        return float(value)

    def flag(self, name: str, default: bool = False) -> bool:
        """True or false."""
        value = self.value(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            self._wrong(name, value, "true or false")
            return default
        return value

    def choice(self, name: str, allowed: Mapping[str, str] | Collection[str], default: str) -> str:
        """One of the words; with a mapping, what it stands for."""
        value = self.value(name)
        if value is None:
            return default
        words = allowed if isinstance(allowed, Mapping) else {word: word for word in allowed}
        if not isinstance(value, str) or value not in words:
            meanings = [word for word in dict.fromkeys(words.values()) if word]
            self._wrong(name, value, f"one of {', '.join(meanings)}{_nearest(str(value), meanings)}")
            return default
        return words[value]

    def quantity(self, name: str, default: str) -> str:
        """A quantity of Kubernetes above 0, such as 2, "500m" or 16Gi."""
        value = self.value(name)
        if value is None:
            return default
        text = str(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else ""
        if not _QUANTITY.fullmatch(text) or to_number(text) == 0:
            self._wrong(name, value, "a quantity above 0 such as 2, 500m or 16Gi")
            return default
        return text

    def texts(self, name: str, most: int = 100, longest: int = 512) -> tuple[str, ...]:
        """A list of strings that are not empty."""
        found = self.items(name)
        if len(found) > most or not all(isinstance(item, str) and 0 < len(item) <= longest for item in found):
            self._wrong(name, self.value(name), f"a list of at most {most} texts, each of 1 to {longest} characters")
            return ()
        return tuple(found)

    def pairs(self, name: str, key: str, value: str, expected: str) -> dict[str, str]:
        """A mapping of strings to strings. key, value: patterns of both. expected: in words."""
        found = self.value(name)
        if found is None:
            return {}
        if not isinstance(found, Mapping):
            self._wrong(name, found, expected)
            return {}
        good = {}
        for each, content in found.items():
            if not isinstance(content, str):
                is_scalar = isinstance(content, bool | int | float)
                self.problem(
                    f"{self._spelled(name)}.{each}",
                    f"is {shown(content)}: expected a text{'; put it in quotes' if is_scalar else ''}",
                )
            elif not isinstance(each, str) or not re.fullmatch(key, each) or not re.fullmatch(value, content):
                self.problem(f"{self._spelled(name)}.{each}", f"is {shown(content)}: expected {expected}")
            else:
                good[each] = content
        return good

    def items(self, name: str) -> list[Any]:
        """A list of anything."""
        value = self.value(name)
        if value is None:
            return []
        if not isinstance(value, list):
            self._wrong(name, value, "a list")
            return []
        return value

    def objects(self, name: str, known: Collection[str]) -> tuple[Mapping[str, Any], ...]:
        """A list of objects of Kubernetes that may have these fields; what is in them the cluster checks."""
        found = self.items(name)
        for index, item in enumerate(found):
            Fields(item, f"{self.at(name)}[{index}]", known, self.problems)
        return tuple(item for item in found if isinstance(item, Mapping))

    def object(self, name: str, known: Collection[str]) -> Mapping[str, Any]:
        """An object of Kubernetes that may have these fields; what is in them the cluster checks."""
        value = self.value(name)
        if value is None:
            return {}
        Fields(value, self.at(name), known, self.problems)
        return value if isinstance(value, Mapping) else {}

    def nested(self, name: str, known: Collection[str]) -> "Fields":
        """The fields of a mapping inside; none if it is not given."""
        value = self.value(name)
        return Fields({} if value is None else value, self.at(name), known, self.problems, self._snake)

    def _spelled(self, name: str) -> str:
        return self._keys.get(name, name)

    def _wrong(self, name: str, value: Any, expected: str) -> None:
        self.problem(name, f"is {shown(value)}: expected {expected}")


def to_number(quantity: str) -> float:
    """The value of a quantity that `Fields.quantity` has read: bytes, or cores."""
    units = {"m": 1e-3, "k": 1e3, "Ki": 2**10, "M": 1e6, "Mi": 2**20, "G": 1e9, "Gi": 2**30, "T": 1e12, "Ti": 2**40}
    digits = quantity.rstrip("mkKMGTi")
    return float(digits) * units.get(quantity[len(digits) :], 1)


def to_snake(name: str) -> str:
    """The name in snake_case."""
    return re.sub(r"(?=[A-Z])", "_", name).lower()


def shown(value: Any) -> str:
    """A value for a message: as YAML would say it, cut off if it is long."""
    if value is None:
        return "empty"
    if isinstance(value, Mapping | list):
        return f"{'a mapping' if isinstance(value, Mapping) else 'a list'} of {len(value)}"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and not math.isfinite(value):
        return ".nan" if math.isnan(value) else ".inf"
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[: _MAX_SHOWN - 3]}..."


def _nearest(word: str, known: Collection[str]) -> str:
    by_lower = {each.lower(): each for each in known}
    found = difflib.get_close_matches(word.lower(), by_lower, 1, 0.7)
    return f", did you mean {by_lower[found[0]]}?" if found else ""
