"""Makes README.md from head.txt and the comments of values.yaml: `python helm/darkroom/tools/readme.py`. Tests check that it was run."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import yaml

CHART = Path(__file__).parents[1]
SERVICES = ("captioner", "trainer", "converter", "webuiGateway", "webuiEngine")


class Entry(NamedTuple):
    """One key of values.yaml. default: as written there, "" for a block that has entries of its own."""

    path: tuple[str, ...]
    default: str
    comment: str


def entries(text: str) -> list[Entry]:
    """All keys of values.yaml in order: blocks whose keys have comments, and values."""
    root = yaml.compose(text)
    assert isinstance(root, yaml.MappingNode), "values.yaml is no mapping"
    return list(_walk(root, (), text.splitlines()))


def _walk(node: yaml.MappingNode, parent: tuple[str, ...], lines: list[str]) -> Iterator[Entry]:
    for key, value in node.value:
        path = (*parent, key.value)
        comment = _comment_above(key.start_mark.line, lines)
        if isinstance(value, yaml.MappingNode) and _is_block(value, lines):
            yield Entry(path, "", comment)
            yield from _walk(value, path, lines)
        else:
            yield Entry(path, _as_written(value), comment)


def _is_block(node: yaml.MappingNode, lines: list[str]) -> bool:
    """Whether the keys of a mapping are documented one by one; else the mapping is one value."""
    return any(_comment_above(key.start_mark.line, lines) or _holds_block(value, lines) for key, value in node.value)


def _holds_block(node: yaml.Node, lines: list[str]) -> bool:
    return isinstance(node, yaml.MappingNode) and not node.flow_style and _is_block(node, lines)


def _comment_above(line: int, lines: list[str]) -> str:
    found: list[str] = []
    while line > 0 and lines[line - 1].lstrip().startswith("# "):
        line -= 1
        found.insert(0, lines[line].strip()[2:])
    return " ".join(found)


def _as_written(node: yaml.Node) -> str:
    """The value on one line."""
    return yaml.serialize(_flow(node), width=10_000).removesuffix("...\n").strip()


def _flow(node: yaml.Node) -> yaml.Node:
    if isinstance(node, yaml.MappingNode):
        return yaml.MappingNode(node.tag, [(_flow(k), _flow(v)) for k, v in node.value], flow_style=True)
    if isinstance(node, yaml.SequenceNode):
        return yaml.SequenceNode(node.tag, [_flow(item) for item in node.value], flow_style=True)
    return node


def tables(found: list[Entry]) -> str:
    """One section for the values on the top level, one for what services share, and one for each block."""
    shared = _shared(found)
    single = [entry for entry in found if len(entry.path) == 1 and entry.default]
    sections = ["### Names and labels\n", *_rows(single), "\n### Every service\n", *_rows(shared)]
    known = {(service, *entry.path[1:]) for entry in shared for service in SERVICES}
    for block in (entry for entry in found if len(entry.path) == 1 and not entry.default):
        own = [
            entry
            for entry in found
            if entry.path[0] == block.path[0] and len(entry.path) > 1 and entry.path not in known
        ]
        changed = [entry for entry in found if entry.path[0] == block.path[0] and _differs(entry, shared)]
        sections += [f"\n### {block.path[0]}\n", f"{block.comment}\n", *_rows([*own, *changed])]
    return "\n".join(sections) + "\n"


def _shared(found: list[Entry]) -> list[Entry]:
    """Values that several services have with the same comment, as "…"."""
    by_comment: dict[tuple[tuple[str, ...], str], list[Entry]] = {}
    for entry in found:
        if entry.path[0] in SERVICES and len(entry.path) > 1:
            by_comment.setdefault((entry.path[1:], entry.comment), []).append(entry)
    result = []
    for (path, comment), same in by_comment.items():
        if len(same) > 1:
            defaults = {entry.default for entry in same}
            result.append(Entry(("…", *path), defaults.pop() if len(defaults) == 1 else "differs", comment))
    return result


def _differs(entry: Entry, shared: list[Entry]) -> bool:
    return any(
        one.default == "differs" and one.path[1:] == entry.path[1:] and one.comment == entry.comment for one in shared
    )


def _rows(found: list[Entry]) -> list[str]:
    rows = ["| value | default | |", "|---|---|---|"]
    for entry in found:
        if entry.default or entry.comment:
            default = {"": "", "differs": "see below"}.get(entry.default, f"`{entry.default}`").replace("|", "\\|")
            rows.append(f"| `{'.'.join(entry.path)}` | {default} | {entry.comment.replace('|', chr(92) + '|')} |")
    return rows


def readme() -> str:
    """The whole page."""
    return (CHART / "tools" / "head.txt").read_text() + "\n" + tables(entries((CHART / "values.yaml").read_text()))


if __name__ == "__main__":
    (CHART / "README.md").write_text(readme())
