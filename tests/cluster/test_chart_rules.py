"""The chart's alerts and the query of its scaler, checked and played with Prometheus' own promtool."""

import subprocess
from pathlib import Path

from tests.cluster.chart_prometheus import program
from tests.helm import test_monitoring


def test_alerts_fire_when_they_should_and_not_else(tmp_path: Path) -> None:
    test_monitoring.play(program("promtool"), tmp_path)


def test_the_first_refused_call_wakes_an_engine(tmp_path: Path) -> None:
    test_monitoring.play_scaler(program("promtool"), tmp_path)


def test_a_second_trainer_changes_no_panel(tmp_path: Path) -> None:
    test_monitoring.play_replicas(program("promtool"), tmp_path)


def test_promtool_sees_a_wrong_rule(tmp_path: Path) -> None:
    (tmp_path / "wrong.yaml").write_text("groups: [{name: a, rules: [{alert: B, expr: 'sum(up'}]}]")
    command = [program("promtool"), "check", "rules", "wrong.yaml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert "unclosed left parenthesis" in done.stderr
