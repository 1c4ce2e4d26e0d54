"""Alerts, dashboards and scalers ask for series that exist; the alerts fire when they should (with promtool, where it is)."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.helm import chart, metric_names
from tests.helm.chart import NAMESPACE

SERIES = metric_names.known()
SHARED = metric_names.shared()
DASHBOARDS = sorted((chart.CHART / "dashboards").glob("*.json"))


def rules() -> list[dict[str, Any]]:
    """All alerts."""
    (item,) = (item for item in chart.rendered("everything") if item["kind"] == "PrometheusRule")
    return [rule for group in item["spec"]["groups"] for rule in group["rules"]]


def panels(path: Path) -> list[dict[str, Any]]:
    """The panels of a dashboard."""
    found: list[dict[str, Any]] = json.loads(path.read_text())["panels"]
    return found


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_alerts_ask_for_series_that_exist(rule: dict[str, Any]) -> None:
    assert list(metric_names.unknown(rule["expr"], SERIES)) == []
    assert f'namespace="{NAMESPACE}"' in rule["expr"], "alerts of one release must not look at another"
    assert {"summary", "description"} == set(rule["annotations"])


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_dashboards_ask_for_series_that_exist(path: Path) -> None:
    board = json.loads(path.read_text())
    expressions = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    expressions += [item["query"]["query"] for item in board["templating"]["list"] if item["type"] == "query"]
    assert [text for one in expressions for text in metric_names.unknown(one, SERIES)] == []
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])


def test_every_series_of_ours_is_on_a_dashboard() -> None:
    shown = "".join(target["expr"] for path in DASHBOARDS for panel in panels(path) for target in panel["targets"])
    left = {
        name for name in SERIES if name.startswith("darkroom_") and not name.endswith(("_created", "_sum", "_count"))
    }
    stems = {re.sub(r"_(bucket|total)$", "", name) for name in left}
    assert sorted(stem for stem in stems if not re.search(rf"\b{stem}(_bucket|_total|_sum)?\b", shown)) == []


def test_panels_do_not_overlap() -> None:
    for path in DASHBOARDS:
        cells = [
            (panel["gridPos"]["x"] + x, panel["gridPos"]["y"] + y)
            for panel in panels(path)
            for x in range(panel["gridPos"]["w"])
            for y in range(panel["gridPos"]["h"])
        ]
        assert len(cells) == len(set(cells))
        assert max(x for x, _ in cells) < 24


def test_scalers_ask_for_series_that_exist() -> None:
    queries = [
        trigger["metadata"]["query"]
        for item in chart.rendered("everything")
        if item["kind"] == "ScaledObject"
        for trigger in item["spec"]["triggers"]
    ]
    assert len(queries) == 2
    assert [text for query in queries for text in metric_names.unknown(query, SERIES)] == []


def test_the_checker_sees_what_does_not_exist() -> None:
    wrong = 'sum by (nothing) (darkroom_serving{colour="red"}) + darkroom_missing'
    assert len(list(metric_names.unknown(wrong, SERIES))) == 3


def expressions() -> list[str]:
    """Of all alerts and panels."""
    shown = [target["expr"] for path in DASHBOARDS for panel in panels(path) for target in panel["targets"]]
    return [*(rule["expr"] for rule in rules()), *shown]


def test_no_expression_counts_a_run_once_for_each_replica() -> None:
    assert [text for one in expressions() for text in metric_names.counted_twice(one, SHARED)] == []


@pytest.mark.parametrize(
    ("expression", "wrong"),
    [
        ('sum by (stage) (rate(darkroom_training_steps_total{job="trainer"}[5m]))', True),
        ("sum(darkroom_runs)", True),
        ("sum(max by (state, pod) (darkroom_runs))", True),
        ("max without (pod) (darkroom_runs)", True),
        ("darkroom_runs > 0", True),
        ("max(darkroom_serving) + darkroom_runs", True),
        ("histogram_quantile(0.5, sum by (le) (rate(darkroom_training_step_seconds_bucket[5m])))", True),
        ("sum(max by (state) (darkroom_runs))", False),
        ("max without (pod, instance) (darkroom_runs)", False),
        ("max((darkroom_runs) / darkroom_runs)", False),
        ("sum(rate(darkroom_grpc_calls_total[5m]))", False),
    ],
)
def test_the_checker_sees_what_is_counted_twice(expression: str, wrong: bool) -> None:
    assert bool(list(metric_names.counted_twice(expression, SHARED))) is wrong


def test_dashboards_are_rendered_unchanged() -> None:
    found = [item for item in chart.rendered("everything") if "dashboard" in item["metadata"]["name"]]
    assert {name: json.loads(text) for item in found for name, text in item["data"].items()} == {
        path.name: json.loads(path.read_text()) for path in DASHBOARDS
    }
    assert all(item["metadata"]["labels"]["grafana_dashboard"] == "1" for item in found)


def test_the_monitor_selects_the_services_with_metrics() -> None:
    objects = chart.rendered("everything")
    (monitor,) = (item for item in objects if item["kind"] == "ServiceMonitor")
    selector = monitor["spec"]["selector"]["matchLabels"]
    (endpoint,) = monitor["spec"]["endpoints"]
    selected = {
        item["metadata"]["labels"][monitor["spec"]["jobLabel"]]
        for item in objects
        if item["kind"] == "Service"
        and selector.items() <= item["metadata"]["labels"].items()
        and endpoint["port"] in {port.get("name") for port in item["spec"]["ports"]}
    }
    assert selected == {"captioner", "trainer", "converter", "webui-gateway", "webui-engine"}
    assert endpoint["honorLabels"] is True  # "service" is a label of the series themselves


# Values of darkroom_grpc_failures_total for NO_BACKEND, one each 15 s, and whether the scaler sees something to do at the end.
REFUSALS = {
    "one, after many quiet minutes": ("0x22 1x5", True),
    "none": ("0x28", False),
    "one, long ago": ("0 1x27", False),
    "one, in a gateway that began anew": ("5x20 0 1x6", True),
    "one, in a series that was not there before: so the gateway shows a zero from its start on": ("_x22 1x5", False),
}


def play_scaler(promtool: str, folder: Path) -> None:
    """Ask the query of the engines' scaler, after 7 minutes of nothing but refusals."""
    (query,) = (
        item["spec"]["triggers"][0]["metadata"]["query"]
        for item in chart.rendered("everything")
        if item["kind"] == "ScaledObject" and item["metadata"]["name"].endswith("-webui-engine")
    )
    labels = f'namespace="{NAMESPACE}",job="webui-gateway",pod="a"'
    queue = {"series": f"darkroom_generation_queue_length{{{labels}}}", "values": "0x28"}
    cases = [
        {
            "name": name,
            "interval": "15s",
            "input_series": [
                queue,
                {
                    "series": f'darkroom_grpc_failures_total{{{labels},method="Generate",reason="NO_BACKEND"}}',
                    "values": values,
                },
            ],
            "promql_expr_test": [
                {
                    "expr": f"({query}) > bool 0",
                    "eval_time": "7m",
                    "exp_samples": [{"labels": "{}", "value": int(wakes)}],
                }
            ],
        }
        for name, (values, wakes) in REFUSALS.items()
    ]
    (folder / "scaler.yaml").write_text(yaml.safe_dump({"evaluation_interval": "15s", "tests": cases}))
    done = subprocess.run(
        [promtool, "test", "rules", "scaler.yaml"], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def play_replicas(promtool: str, folder: Path) -> None:
    """Draw the panels of training with one trainer and with two that say the same: nothing may differ."""
    labels = {"session": "robot", "stage": "unet", "state": "RUNNING"}
    series = [
        {
            "series": f"{name}{{{_labels({**pod, **{key: labels[key] for key in SERIES[name] & labels.keys()}, **le})}}}",
            "values": "0+3x40" if re.search("_(total|bucket|sum|count)$", name) else "3x40",
        }
        for name in sorted(SHARED & SERIES.keys())
        for le in ([{"le": "1"}, {"le": "+Inf"}] if "le" in SERIES[name] else [{}])
        for pod in (
            {"namespace": "one", "pod": "a"},
            {"namespace": "two", "pod": "a"},
            {"namespace": "two", "pod": "b"},
        )
    ]
    path = chart.CHART / "dashboards" / "training.json"
    shown = [target["expr"].replace("$__rate_interval", "5m") for panel in panels(path) for target in panel["targets"]]
    cases = [
        {
            "expr": f"count({one.replace('$namespace', 'two')} == {one.replace('$namespace', 'one')})",
            "eval_time": "18m",
            "exp_samples": [{"labels": "{}", "value": 1}],
        }
        for one in shown
    ]
    test = {"interval": "30s", "input_series": series, "promql_expr_test": cases}
    (folder / "replicas.yaml").write_text(yaml.safe_dump({"evaluation_interval": "30s", "tests": [test]}))
    done = subprocess.run(
        [promtool, "test", "rules", "replicas.yaml"], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def _labels(pairs: dict[str, str]) -> str:
    return ",".join(f'{name}="{value}"' for name, value in pairs.items())


def play(promtool: str, folder: Path) -> None:
    """Check the rendered alerts with promtool and play alerts.yaml against them."""
    (item,) = (item for item in chart.rendered("everything") if item["kind"] == "PrometheusRule")
    (folder / "rules.yaml").write_text(yaml.safe_dump(item["spec"]))
    cases = Path(__file__).with_name("alerts.yaml")
    (folder / "alerts.yaml").write_text(cases.read_text())
    for arguments in (["check", "rules", "rules.yaml"], ["test", "rules", "alerts.yaml"]):
        done = subprocess.run([promtool, *arguments], cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def promtool() -> str:
    """Prometheus' own checker, if this machine has it."""
    found = shutil.which("promtool")
    if found is None:
        pytest.skip(
            "promtool is not on the PATH, and no package of the Python index has it; `make e2e` fetches Debian's"
        )
    return found


def test_alerts_fire_when_they_should(promtool: str, tmp_path: Path) -> None:
    play(promtool, tmp_path)


def test_the_first_refused_call_wakes_an_engine(promtool: str, tmp_path: Path) -> None:
    play_scaler(promtool, tmp_path)


def test_a_second_trainer_changes_no_panel(promtool: str, tmp_path: Path) -> None:
    play_replicas(promtool, tmp_path)


def test_every_alert_has_a_case_in_which_it_fires() -> None:
    cases = yaml.safe_load(Path(__file__).with_name("alerts.yaml").read_text())["tests"]
    fired = {one["alertname"] for case in cases for one in case["alert_rule_test"] if one.get("exp_alerts")}
    quiet = {one["alertname"] for case in cases for one in case["alert_rule_test"] if not one.get("exp_alerts")}
    assert fired == quiet == {rule["alert"] for rule in rules()}
