"""Prometheus out of Debian's package, scraping a release as its ServiceMonitor says."""

import json
import shutil
import subprocess
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.cluster.chart_release import Release
from tests.cluster.control_plane.plane import free_port
from tests.cluster.harness.binaries import cache_folder
from tests.cluster.harness.processes import wait_until
from tests.helm import chart

SCRAPE_SECONDS: Final = 2
RATE_SECONDS: Final = 16
"""What Grafana would put for $__rate_interval: several scrapes."""
_COMMANDS: Final = ("apt-get download prometheus", "dpkg-deb -x prometheus_*.deb unpacked")

Series = tuple[dict[str, str], list[tuple[float, float]]]


def program(name: str) -> str:
    """prometheus or promtool: the one on the PATH, or that of Debian's package, unpacked once beside the cluster's programs."""
    if found := shutil.which(name):
        return found
    kept = cache_folder() / "prometheus"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent) as folder:
            _fetch(name, Path(folder)).rename(kept)
    return str(kept / name)


def _fetch(name: str, folder: Path) -> Path:
    for command in _COMMANDS:
        done = subprocess.run(["sh", "-c", command], cwd=folder, capture_output=True, text=True)
        if done.returncode:
            pytest.fail(
                f"{name} is missing: it is not on the PATH, and `{command}` ended with {done.returncode}: {done.stderr.strip()}. "
                "Install it (Debian: apt-get install prometheus), or run `apt-get update` first"
            )
    return folder / "unpacked/usr/bin"


@dataclass(frozen=True)
class Prometheus:
    """A running Prometheus. begin: when it was started."""

    url: str
    begin: float

    def query_range(self, expression: str, step: int = SCRAPE_SECONDS) -> list[Series]:
        """The series of an expression since the beginning, each as (seconds, value)."""
        asked = {"query": expression, "start": self.begin, "end": time.time(), "step": step}
        answer = self._get(f"/api/v1/query_range?{urllib.parse.urlencode(asked)}")
        return [
            (one["metric"], [(at - self.begin, float(value)) for at, value in one["values"]])
            for one in answer["data"]["result"]
        ]

    def targets(self) -> list[tuple[str, str]]:
        """Job and health of each target."""
        active = self._get("/api/v1/targets?state=active")["data"]["activeTargets"]
        return sorted((one["labels"]["job"], one["health"]) for one in active)

    def _get(self, path: str) -> Any:
        with urllib.request.urlopen(self.url + path, timeout=30) as answer:
            return json.load(answer)


@contextmanager
def scraping(release: Release, folder: Path) -> Iterator[Prometheus]:
    """Prometheus as long as the block, on this machine, which reaches the pods."""
    (folder / "prometheus.yml").write_text(yaml.safe_dump(_config(release)))
    port = free_port()
    command = [
        program("prometheus"),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
    ]
    with (folder / "prometheus.log").open("w") as log:
        process = subprocess.Popen([*command, f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log)
        try:
            made = Prometheus(f"http://127.0.0.1:{port}", time.time())
            wait_until("Prometheus scrapes", lambda: _is_at_work(made), 60)
            yield made
        finally:
            process.terminate()
            process.wait()


def _is_at_work(prometheus: Prometheus) -> bool:
    try:
        found = prometheus.targets()
    except OSError:
        return False
    return bool(found) and all(health == "up" for _, health in found)


def _config(release: Release) -> dict[str, Any]:
    """What the Prometheus operator makes of the chart's ServiceMonitor. Debian's build knows no Kubernetes, so targets are told."""
    (monitor,) = (item for item in chart.rendered("everything") if item["kind"] == "ServiceMonitor")
    (endpoint,) = monitor["spec"]["endpoints"]
    labels = monitor["spec"]["selector"]["matchLabels"] | {"app.kubernetes.io/instance": release.name}
    selector = ",".join(f"{key}={value}" for key, value in labels.items())
    here = ("--namespace", release.namespace)
    targets = []
    for service in release.cluster.get("services", *here, f"--selector={selector}")["items"]:
        name, job = service["metadata"]["name"], service["metadata"]["labels"][monitor["spec"]["jobLabel"]]
        slices = release.cluster.get("endpointslices", *here, f"--selector=kubernetes.io/service-name={name}")["items"]
        for pod, address in _endpoints(slices, endpoint["port"]):
            own = {"job": job, "namespace": release.namespace, "pod": pod, "service": name}
            targets.append({"targets": [address], "labels": own})
    scraped = {"job_name": "darkroom", "honor_labels": endpoint["honorLabels"], "static_configs": targets}
    times = {"scrape_interval": f"{SCRAPE_SECONDS}s", "scrape_timeout": f"{SCRAPE_SECONDS}s"}
    return {"global": times, "scrape_configs": [scraped]}


def _endpoints(slices: list[dict[str, Any]], port_name: str) -> Iterator[tuple[str, str]]:
    """Each pod behind a Service and its address, as far as it has a port of this name."""
    for one in slices:
        for port in one["ports"]:
            if port["name"] == port_name:
                for endpoint in one["endpoints"]:
                    yield endpoint["targetRef"]["name"], f"{endpoint['addresses'][0]}:{port['port']}"
