"""docs/operators.md agrees with the chart: commands, values and tables."""

import re
import subprocess
from typing import Any

import pytest
import yaml

from tests.helm import chart
from tests.helm.chart import CHART
from tests.helm.test_readme import ENTRIES

TEXT = (CHART.parents[1] / "docs" / "operators.md").read_text()
BLOCKS = re.findall(r"^```(\w+)( e2e(?: \w+)?)?\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
PATHS = {".".join(entry.path) for entry in ENTRIES}
TOP = {path.partition(".")[0] for path in PATHS}


def table(header: str) -> list[list[str]]:
    """Cells of the rows below a header line."""
    rows = TEXT.partition(f"{header}\n")[2].partition("\n\n")[0].splitlines()[1:]
    assert rows, f"no table {header!r}"
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def test_every_command_is_for_the_cluster_tests() -> None:
    commands = [mark for language, mark, _ in BLOCKS if language == "sh"]
    assert len(commands) >= 15
    assert set(commands) == {" e2e", " e2e serves", " e2e trial", " e2e last"}
    assert not any(mark for language, mark, _ in BLOCKS if language != "sh")


@pytest.mark.parametrize("text", [text for language, _, text in BLOCKS if language == "sh"])
def test_commands_are_shell(text: str) -> None:
    done = subprocess.run(["bash", "-n"], input=text, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def test_values_that_commands_set_exist() -> None:
    found = re.findall(r"--set ([\w.]+)=", TEXT)
    assert len(found) >= 8
    assert [path for path in found if path not in PATHS and path.rpartition(".")[0] not in PATHS] == []


def test_values_that_sentences_name_exist() -> None:
    named = [word for word in re.findall(r"`(\w+(?:\.\w+)+)`", TEXT) if word.partition(".")[0] in TOP]
    assert len(named) >= 15
    assert [word for word in named if word not in PATHS] == []


@pytest.mark.parametrize("text", [text for language, _, text in BLOCKS if language == "yaml"])
def test_values_in_blocks_are_accepted(text: str) -> None:
    values: dict[str, Any] = yaml.safe_load(text)
    assert chart.render("minimal", overrides=values)


def test_the_alerts_are_those_of_the_chart() -> None:
    (item,) = (item for item in chart.rendered("everything") if item["kind"] == "PrometheusRule")
    rules = {rule["alert"] for group in item["spec"]["groups"] for rule in group["rules"]}
    assert {name for row in table("| alert | says |") for name in row[0].split(", ")} == rules


def test_the_trainers_rights_are_those_of_the_chart() -> None:
    (role,) = (item for item in chart.rendered("minimal") if item["kind"] == "Role")
    rights = {
        "/".join(filter(None, (group, resource))): ", ".join(rule["verbs"])
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }
    assert {row[0].strip("`"): row[1] for row in table("| resource | verbs |")} == rights


def test_failed_hooks_are_found_by_the_command_that_removes_them() -> None:
    (command,) = (text for _, _, text in BLOCKS if "kubectl delete jobs,pods" in text)
    kinds, selector = re.findall(r'delete (\S+) .*--selector "(.+)"', command)[0]
    wanted = dict(pair.split("=") for pair in selector.replace("$RELEASE", chart.RELEASE).split(","))
    hooks = [item for item in chart.rendered("minimal") if "helm.sh/hook" in item["metadata"].get("annotations", {})]
    assert {f"{item['kind'].lower()}s".replace("policys", "policies") for item in hooks} == set(kinds.split(","))
    for item in hooks:
        assert wanted.items() <= item["metadata"]["labels"].items()


@pytest.mark.parametrize(
    ("component", "values"),
    [
        ("trial-store", ("trial", {"trialStore": {"persistence": {"enabled": True}}})),
        ("webui-engine", ("minimal", {"webuiEngine": {"cache": {"persistent": True}}})),
    ],
)
def test_sizes_are_changed_in_stateful_sets_and_claims_that_exist(
    component: str, values: tuple[str, dict[str, Any]]
) -> None:
    stateful = chart.find(chart.render(values[0], overrides=values[1]), "StatefulSet", component)
    assert f'kubectl delete statefulset "$RELEASE-{component}"' in TEXT
    (claim,) = stateful["spec"]["volumeClaimTemplates"]
    if component == "trial-store":
        assert f'patch pvc "{claim["metadata"]["name"]}-$RELEASE-{component}-0"' in TEXT
    else:  # the caches go with their StatefulSet
        assert stateful["spec"]["persistentVolumeClaimRetentionPolicy"]["whenDeleted"] == "Delete"


def test_every_dashboard_is_named() -> None:
    for path in (CHART / "dashboards").glob("*.json"):
        assert f"*{path.stem}*" in TEXT
