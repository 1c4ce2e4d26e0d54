"""README's tree is the tree, and every relative link in the documents leads somewhere."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    ROOT / name
    for name in subprocess.run(
        ["git", "ls-files", "*.md"], cwd=ROOT, text=True, capture_output=True, check=True
    ).stdout.splitlines()
)


def tracked() -> set[str]:
    """Files and folders that git knows, as paths with a trailing slash for folders."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, text=True, capture_output=True, check=True).stdout
    paths = set()
    for name in listed.splitlines():
        paths.add(name)
        paths |= {f"{parent}/" for parent in map(str, Path(name).parents) if parent != "."}
    return paths


def tree() -> list[str]:
    """Paths of README's tree, built from its indentation."""
    text = (ROOT / "README.md").read_text()
    block = re.search(r"```tree\n(.*?)```", text, re.DOTALL)
    assert block, "README.md has no ```tree block"
    paths: list[str] = []
    parents: list[str] = []
    for line in block.group(1).splitlines():
        if not line.strip():
            continue
        depth = (len(line) - len(line.lstrip())) // 2
        for name in re.split(r"\s{2,}", line.strip())[0].split(" · "):
            parents = [*parents[:depth], name]
            paths.append("".join(parents[: depth + 1]))
    return paths


def test_every_line_of_the_tree_exists() -> None:
    assert [path for path in tree() if path not in tracked()] == []


def test_the_tree_has_everything_at_the_top_and_below_what_it_opens() -> None:
    shown, known = set(tree()), tracked()
    opened = {""} | {path for path in shown if any(other != path and other.startswith(path) for other in shown)}
    missing = []
    for folder in opened:
        children = {
            folder + re.match(r"[^/]*/?", path[len(folder) :]).group()
            for path in known
            if path.startswith(folder) and path != folder
        }  # type: ignore[union-attr]
        missing += sorted(children - shown)
    hidden = [path for path in missing if not Path(path).name.startswith(".")]
    assert [
        path for path in hidden if not re.search(r"(__init__\.py|py\.typed|pyproject\.toml|README\.md)$", path)
    ] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    links = re.findall(r"\]\((?!https?://|#)([^)#\s]+)", document.read_text())
    assert [link for link in links if not (document.parent / link).exists()] == []
