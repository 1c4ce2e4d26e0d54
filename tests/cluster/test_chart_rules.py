"""The chart's alerts, checked and played with Prometheus' own promtool, out of Debian's package."""

import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.cluster.harness.binaries import cache_folder
from tests.helm import test_monitoring


def promtool() -> str:
    """The one on the PATH, or the one of Debian's package `prometheus`, unpacked once into the cache of the cluster's programs."""
    if found := shutil.which("promtool"):
        return found
    kept = cache_folder() / "promtool"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent) as folder:
            _unpack(Path(folder)).rename(kept)
    return str(kept)


def _unpack(folder: Path) -> Path:
    for command in ("apt-get download prometheus", "dpkg-deb -x prometheus_*.deb unpacked"):
        done = subprocess.run(["sh", "-c", command], cwd=folder, capture_output=True, text=True)
        if done.returncode:
            pytest.fail(
                f"promtool is missing: it is not on the PATH, and `{command}` ended with {done.returncode}: {done.stderr.strip()}. "
                "Install it (Debian: apt-get install prometheus), or run `apt-get update` first"
            )
    return folder / "unpacked/usr/bin/promtool"


def test_alerts_fire_when_they_should_and_not_else(tmp_path: Path) -> None:
    test_monitoring.play(promtool(), tmp_path)


def test_promtool_sees_a_wrong_rule(tmp_path: Path) -> None:
    wrong = "groups: [{name: a, rules: [{alert: B, expr: 'sum(up'}]}]"
    (tmp_path / "wrong.yaml").write_text(wrong)
    done = subprocess.run([promtool(), "check", "rules", "wrong.yaml"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert "unclosed left parenthesis" in done.stderr
