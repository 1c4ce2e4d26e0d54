"""README.md is made from values.yaml, where every value has a comment and the schema knows every value."""

import importlib.util
import json
import sys
from typing import Any

import pytest
import yaml

from tests.helm import chart
from tests.helm.chart import CHART
from tests.helm.test_restricted import ours, restricted


def load_tool() -> Any:
    """helm/darkroom/tools/readme.py as a module."""
    spec = importlib.util.spec_from_file_location("chart_readme", CHART / "tools" / "readme.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["chart_readme"] = module
    spec.loader.exec_module(module)
    return module


readme = load_tool()
ENTRIES = readme.entries((CHART / "values.yaml").read_text())


def test_the_readme_is_up_to_date() -> None:
    assert (CHART / "README.md").read_text() == readme.readme(), "run `python helm/darkroom/tools/readme.py`"


def test_every_value_has_a_comment() -> None:
    assert [".".join(entry.path) for entry in ENTRIES if entry.default and not entry.comment] == []


def test_every_value_is_in_the_readme() -> None:
    text = (CHART / "README.md").read_text()
    services = set(readme.SERVICES)
    for entry in (one for one in ENTRIES if one.default):
        names = [entry.path] + ([("…", *entry.path[1:])] if entry.path[0] in services else [])
        assert any(f"| `{'.'.join(name)}` |" in text for name in names), entry.path


def test_schema_and_values_have_the_same_names() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())

    def compare(node: dict[str, Any], value: Any, path: str) -> None:
        node = schema["definitions"][node["$ref"].rpartition("/")[2]] if "$ref" in node else node
        if "properties" not in node or not value:  # {} : nothing is set, such as an issuer
            return
        known = set(node["properties"]) - ({"global"} if not path else {"claims"})
        assert known == set(value) or (known > set(value) and path.endswith("resources")), path
        for key, part in value.items():
            compare(node["properties"][key], part, f"{path}.{key}")

    compare(schema, values, "")


@pytest.mark.parametrize("path", sorted((CHART / "examples").glob("*.yaml")), ids=lambda path: path.stem)
def test_examples_of_values_render(path: Any) -> None:
    overrides = yaml.safe_load(path.read_text())
    assert list(chart.pods(chart.render(overrides=overrides)))


@pytest.mark.parametrize("path", sorted((CHART / "examples").glob("*.yaml")), ids=lambda path: path.stem)
def test_pods_of_the_examples_are_restricted(path: Any) -> None:
    for pod in chart.pods(chart.render(overrides=yaml.safe_load(path.read_text()))):
        assert [*restricted(pod), *ours(pod, True)] == [], pod.name
