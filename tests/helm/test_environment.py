"""Every variable that the chart sets is a setting of the program it is set for, with a value that it takes."""

import base64
import http.server
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from artifacts.config import StoreConfig
from captioner.config import CaptionerConfig
from chassis import config
from converter.config import ConverterConfig
from trainer.config import TrainerConfig
from webui_engine.config import EngineConfig
from webui_gateway.config import GatewayConfig

from tests.helm import chart
from tests.helm.chart import Object, Pod

PROGRAMS: dict[str, type] = {
    "captioner": CaptionerConfig,
    "trainer": TrainerConfig,
    "converter": ConverterConfig,
    "webui-gateway": GatewayConfig,
    "webui-engine": EngineConfig,
    "bucket-setup": StoreConfig,
}
SETS = ("minimal", "everything", "alternatives", "trial")


def known(program: type) -> set[str]:
    """Names of variables, those of files with a secret included."""
    found = set()
    for one in config.settings(program):
        found |= {one.env, one.file_env} if one.by_file else {one.env}
    return found


@pytest.mark.parametrize("component", PROGRAMS)
@pytest.mark.parametrize("name", SETS)
def test_variables_exist(name: str, component: str) -> None:
    ours = {key for key in chart.pod(chart.rendered(name), component).env() if key.startswith("DARKROOM_")}
    assert ours - known(PROGRAMS[component]) == set()


@pytest.mark.parametrize("component", PROGRAMS)
@pytest.mark.parametrize("name", SETS)
def test_the_program_starts_with_them(name: str, component: str, tmp_path: Path) -> None:
    """The configuration is read from the rendered variables, with the mounted files at another place."""
    objects = chart.rendered(name)
    pod = chart.pod(objects, component)
    environ = {key: _moved(value, pod, objects, tmp_path) for key, value in pod.env().items()}
    read: Any = config.read(PROGRAMS[component], environ)
    if component != "bucket-setup":
        assert read.server.token == ("" if name == "trial" else "content of token")
        assert (read.server.port, read.server.metrics_port) == (7861 if component == "webui-engine" else 50051, 9090)
        assert read.server.drain_seconds == drain_seconds(pod)
        read = read.store
    assert (read.access_key, read.secret_key) == ("content of access-key", "content of secret-key")


def _moved(value: str, pod: Pod, objects: list[Object], folder: Path) -> str:
    """The value, or for a path below a mounted Secret or ConfigMap the path of a file that stands in for it."""
    if not value.startswith("/etc/darkroom/"):
        return value
    (mount,) = (one for one in pod.main["volumeMounts"] if value.startswith(f"{one['mountPath']}/"))
    (volume,) = (one for one in pod.spec["volumes"] if one["name"] == mount["name"])
    file = value.removeprefix(f"{mount['mountPath']}/")
    if "configMap" in volume:
        (found,) = (item for item in objects if item["metadata"]["name"] == volume["configMap"]["name"])
        content = found["data"][file]
    else:
        assert file in {item["path"] for item in volume["secret"].get("items", ())} or "items" not in volume["secret"]
        content = f"content of {file}\n"
    (folder / file).write_text(content)
    return str(folder / file)


def drain_seconds(pod: Pod) -> float:
    """What the program is told."""
    return float(pod.env()["DARKROOM_DRAIN_SECONDS"])


@pytest.mark.parametrize("name", SETS)
def test_the_grace_period_holds_the_pause_and_the_drain(name: str) -> None:
    for pod in chart.pods(chart.rendered(name)):
        if pod.component in PROGRAMS and pod.component != "bucket-setup":
            pause = pod.main.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
            assert pod.spec["terminationGracePeriodSeconds"] == pause + drain_seconds(pod) + 15
            assert (pause > 0) is (name != "trial")


def test_the_gateway_drains_longer_than_the_engines_it_waits_for() -> None:
    objects = chart.rendered("minimal")
    assert drain_seconds(chart.pod(objects, "webui-gateway")) > drain_seconds(chart.pod(objects, "webui-engine"))


def test_startup_waits_as_long_as_is_said() -> None:
    objects = chart.render("minimal", overrides={"captioner": {"startupSeconds": 1801}})
    probe = chart.pod(objects, "captioner").main["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] == 1805


def test_large_numbers_stay_numbers() -> None:
    """Numbers of a file are floats to helm, and it prints large ones as 1e+06."""
    overrides = {"captioner": {"maxQueueImages": 123456789}, "store": {"setup": {"ttlSeconds": 12345678}}}
    text = chart.template("minimal", overrides=overrides)
    assert 'value: "123456789"' in text
    assert "ttlSecondsAfterFinished: 12345678" in text


def test_models_lie_where_the_programs_look() -> None:
    objects = chart.rendered("minimal")
    for component in ("captioner", "webui-gateway", "webui-engine"):
        pod = chart.pod(objects, component)
        (init,) = pod.spec["initContainers"]
        assert init["args"] == ["models", "copy", "/models/tiny", "/target"]
        copied = {mount["name"] for mount in init["volumeMounts"] if mount["mountPath"] == "/target"}
        assert copied == {mount["name"] for mount in pod.main["volumeMounts"] if mount["mountPath"] == "/models"}
    tiny = chart.CHART.parents[1] / "models" / "tiny"
    env = chart.pod(objects, "captioner").env()
    for variable in ("DARKROOM_CAPTION_MODEL", "DARKROOM_RETRIEVAL_MODEL"):
        assert (tiny / env[variable].removeprefix("/models/") / "config.json").is_file()


def test_own_models_replace_the_tiny_ones() -> None:
    volume = {"persistentVolumeClaim": {"claimName": "mine"}}
    overrides = {"captioner": {"models": {"volume": volume}, "model": "blip2-opt"}}
    pod = chart.pod(chart.render("minimal", overrides=overrides), "captioner")
    assert "initContainers" not in pod.spec
    assert {"name": "models", **volume} in pod.spec["volumes"]
    assert pod.env()["DARKROOM_CAPTION_MODEL"] == "/models/blip2-opt"


def test_the_gateway_knows_each_engine_by_name() -> None:
    objects = chart.rendered("alternatives")
    engine = chart.find(objects, "StatefulSet", "webui-engine")
    urls = chart.pod(objects, "webui-gateway").env()["DARKROOM_ENGINES"].split(",")
    headless = engine["spec"]["serviceName"]
    assert headless in {item["metadata"]["name"] for item in objects if item["kind"] == "Service"}
    name = engine["metadata"]["name"]
    assert urls == [f"http://{name}-{n}.{headless}.{chart.NAMESPACE}.svc:7861" for n in range(6)]


def test_probes_ask_what_the_services_answer() -> None:
    plain, tls = chart.rendered("minimal"), chart.rendered("everything")
    for component in ("captioner", "trainer", "converter"):
        assert chart.pod(plain, component).main["readinessProbe"]["grpc"] == {"port": 50051}
        # Kubernetes before 1.37 has no gRPC probe with TLS.
        assert "darkroom_serving" in str(chart.pod(tls, component).main["readinessProbe"]["exec"])
    assert chart.pod(plain, "webui-gateway").main["readinessProbe"]["httpGet"]["scheme"] == "HTTP"
    assert chart.pod(tls, "webui-gateway").main["readinessProbe"]["httpGet"]["scheme"] == "HTTPS"


@pytest.mark.parametrize(
    ("page", "code"),
    [
        ('darkroom_serving{service="a"} 1.0\ndarkroom_serving{service="b"} 1.0\n', 0),
        ('darkroom_serving{service="a"} 1.0\ndarkroom_serving{service="b"} 0.0\n', 1),
        ("# nothing yet\n", 1),
    ],
)
def test_the_probe_by_metrics_tells_serving_from_not(page: str, code: int) -> None:
    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(page.encode())

        def log_message(self, *_: object) -> None:
            """Quiet."""

    command = chart.pod(chart.rendered("everything"), "captioner").main["readinessProbe"]["exec"]["command"]
    assert command[:2] == ["python", "-c"]
    with http.server.HTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        script = command[2].replace(":9090/", f":{server.server_port}/")
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert done.returncode == code, done.stderr


def test_engines_scaled_to_zero_leave_the_gateway_reachable() -> None:
    """Else no call would reach it that could wake an engine."""
    assert (
        chart.pod(chart.rendered("everything"), "webui-gateway").main["readinessProbe"]["httpGet"]["path"] == "/healthz"
    )
    assert chart.pod(chart.rendered("minimal"), "webui-gateway").main["readinessProbe"]["httpGet"]["path"] == "/readyz"


def test_the_generated_token_is_one_that_headers_carry() -> None:
    secret = chart.find(chart.rendered("minimal"), "Secret", "token")
    assert re.fullmatch(r"[A-Za-z0-9]{40}", base64.b64decode(secret["data"]["token"]).decode())
