"""Many renders of the chart at the price of a few: one parent chart holds it once for each set of values, under an alias."""

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tests.helm import helm_binary
from tests.helm.chart import CHART, NAMESPACE, RELEASE

Values = dict[str, Any]
_ALIAS: Final = "darkroom"


def render_each(values: Sequence[Values], folder: Path) -> list[str]:
    """What the chart prints for each set of values, or helm's refusal; comparable with each other."""
    if not values:
        return []
    done = _template(values, folder)
    if done.returncode == 0:
        return _texts(done.stdout, len(values))
    if len(values) == 1:
        return [f"refused: {_normal(done.stderr)}"]
    # One that is refused takes all others with it.
    middle = len(values) // 2
    return render_each(values[:middle], folder) + render_each(values[middle:], folder)


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> Values:
    """Values as helm merges files of them."""
    result = dict(base)
    for key, value in over.items():
        old = result.get(key)
        result[key] = merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return result


def _template(values: Sequence[Values], folder: Path) -> Any:
    parent = folder / "parent"
    if not parent.exists():
        shutil.copytree(CHART, parent / "charts" / _ALIAS, ignore=shutil.ignore_patterns("ci", "tools", "examples"))
    aliases = [f"{_ALIAS}{number:03}" for number in range(len(values))]
    dependencies = [{"name": _ALIAS, "version": "0.1.0", "alias": alias} for alias in aliases]
    metadata = {"apiVersion": "v2", "name": "parent", "version": "0.1.0", "dependencies": dependencies}
    (parent / "Chart.yaml").write_text(json.dumps(metadata))
    arguments = ["template", RELEASE, parent, "--namespace", NAMESPACE, "--kube-version", "1.33.0", "--values", "-"]
    return helm_binary.run(*arguments, stdin=json.dumps(dict(zip(aliases, values, strict=True))))


def _texts(output: str, count: int) -> list[str]:
    """The documents of each alias, in the order in which helm prints them."""
    texts = [""] * count
    for document in output.split("\n---\n"):
        source = re.search(rf"# Source: parent/charts/{_ALIAS}(\d+)/", document)
        if source:
            texts[int(source[1])] += _normal(document) + "\n---\n"
    return texts


def _normal(text: str) -> str:
    """The text without the alias, and without what is random."""
    text = re.sub(rf"\b{_ALIAS}\d{{3}}\b", _ALIAS, text)
    return re.sub(r"^(  [-\w.]+: )[A-Za-z0-9+/]{20,}=*$", r"\1random", text, flags=re.MULTILINE)
