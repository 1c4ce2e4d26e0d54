"""One YAML document, with the line of every field, so that a mistake can be found. `fields` reads typed values out of it."""

import re
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import yaml

from jobs.errors import FileInvalid


@dataclass(frozen=True)
class Document:
    """A mapping and, for each path such as "spec.recipe.seed" or "spec.tolerations[0]", its line from 1."""

    source: str
    value: dict[Any, Any]
    lines: dict[str, int]

    def error(self, problems: list[tuple[str, str]]) -> FileInvalid:
        """The error with all problems, pairs of path and text, in the order of the file."""
        located = sorted((self._line(path), f"{path or 'the file'} {text}") for path, text in problems)
        return FileInvalid(self.source, tuple(f"{self.source}:{line}: {text}" for line, text in located))

    def _line(self, path: str) -> int:
        """The line of the path, or of the nearest part above it that is there."""
        while path and path not in self.lines:
            path = path[: max(path.rfind("."), path.rfind("["), 0)]
        return self.lines.get(path, 1)


def load(text: str, source: str) -> Document:
    """Read one document, a mapping; an empty file is an empty one. source: name of the file for messages.

    Raises FileInvalid for what is no YAML, or repeats a key.
    """
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        value = loader.construct_document(node) if node else None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise FileInvalid(source, (f"{source}:{line}: not YAML: {error.problem or error.context}",)) from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a text that its tag does not fit
        raise FileInvalid(source, (f"{source}:1: not YAML: {error}",)) from error
    lines: dict[str, int] = {}
    wrong = []
    try:
        parts = list(_walk(node, "")) if node else []
    except RecursionError:
        raise FileInvalid(source, (f"{source}:1: not YAML: an alias refers to what it is in",)) from None
    for path, part, is_repeated in parts:
        line = part.start_mark.line + 1
        if is_repeated:
            wrong.append(f"{source}:{line}: {path} is given twice: keep one")
        if part.tag not in _TAGS:
            wrong.append(f"{source}:{line}: {path} has the type {part.tag}: expected what JSON can hold, too")
        lines.setdefault(path, line)
    if wrong:
        raise FileInvalid(source, tuple(wrong))
    document = Document(source, {} if value is None else value, lines)
    if not isinstance(document.value, dict):
        raise document.error([("", f"is one {type(value).__name__}: expected fields and their values")])
    return document


class _Loader(yaml.SafeLoader):
    """Scalars as JSON and YAML 1.2 have them. By PyYAML's rules, of YAML 1.1, 1e-6 is a word, 12:30 a number and 010 is 8."""


_RULES: Final = {
    "bool": (r"true|false|True|False|TRUE|FALSE|yes|no|Yes|No|YES|NO|on|off|On|Off|ON|OFF", "tfTFyYnNoO"),
    "int": (r"[-+]?(0|[1-9]\d*)|0x[0-9a-fA-F]+", "-+0123456789"),
    "float": (
        r"[-+]?(\d+\.\d*|\.\d+|\d+(?=[eE]))([eE][-+]?\d+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+0123456789.",
    ),
    "null": (r"~|null|Null|NULL|", "~nN\0"),
    "merge": (r"<<", "<"),
}
_TAGS: Final = {f"tag:yaml.org,2002:{name}" for name in (*_RULES, "str", "map", "seq")}
_Loader.yaml_implicit_resolvers = {}
for _name, (_pattern, _first) in _RULES.items():
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_name}", re.compile(f"(?:{_pattern})$"), ["" if c == "\0" else c for c in _first]
    )


def _walk(node: yaml.Node, path: str) -> Iterator[tuple[str, yaml.Node, bool]]:
    """Path and node of everything below a node, and whether the same mapping has that key already.

    The line of a field is that of its value, which for an empty value is where it would begin.
    """
    if isinstance(node, yaml.MappingNode):
        seen: set[Hashable] = set()
        for key, value in node.value:
            inner = f"{path}.{key.value}" if path else str(key.value)
            yield inner, value, key.value in seen
            seen.add(key.value)
            yield from _walk(value, inner)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield f"{path}[{index}]", value, False
            yield from _walk(value, f"{path}[{index}]")
