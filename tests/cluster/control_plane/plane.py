"""A control plane without any node: etcd, API server, controllers and scheduler, in a folder of its own, on free ports.

For tests that need the real API and the real Job controller, but no container. Nothing of it touches a cluster of the
harness that may be up. `kubelet` plays the nodes.
"""

import json
import socket
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from tests.cluster.harness.binaries import binary

ADMIN, TRAINER, NOBODY = "admin-token", "trainer-token", "nobody-token"
_START_SECONDS = 60
_CONTROLLERS = (
    "job-controller,garbage-collector-controller,ttl-after-finished-controller,namespace-controller,"
    "serviceaccount-controller,resourcequota-controller"
)


class Refused(Exception):
    """The API server said no. Attributes: code, message."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{code} {message}")
        self.code = code
        self.message = message


@dataclass
class Plane:
    """The running programs. token: of the holder of this view."""

    folder: Path
    etcd_port: int
    api_port: int
    token: str = ADMIN
    processes: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)

    def start(self) -> None:
        """Start everything and wait until the API server is ready."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "tokens.csv").write_text(
            f'{ADMIN},admin,1,"system:masters"\n{TRAINER},trainer,2\n{NOBODY},nobody,3\n'
        )
        private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        key = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (self.folder / "sa.key").write_bytes(key)
        public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        (self.folder / "sa.pub").write_bytes(public)
        stages = {"level": "Metadata", "omitStages": ["RequestReceived"], "users": ["trainer"]}
        policy = {"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": [stages, {"level": "None"}]}
        (self.folder / "audit.json").write_text(json.dumps(policy))
        self._start_etcd()
        self.start_api_server()
        kubeconfig = self.kubeconfig(ADMIN)
        common = [f"--kubeconfig={kubeconfig}", "--leader-elect=false", "--secure-port=0"]
        keys = [f"--service-account-private-key-file={self.folder / 'sa.key'}", f"--controllers={_CONTROLLERS}"]
        self._run("kube-controller-manager", *common, *keys, "--concurrent-job-syncs=2")
        self._run("kube-scheduler", *common)

    def start_api_server(self) -> None:
        """Start the API server, also again after `stop_api_server`."""
        self._run(
            "kube-apiserver",
            f"--etcd-servers=http://127.0.0.1:{self.etcd_port}",
            "--bind-address=127.0.0.1",
            f"--secure-port={self.api_port}",
            f"--cert-dir={self.folder / 'certificates'}",
            f"--token-auth-file={self.folder / 'tokens.csv'}",
            "--authorization-mode=RBAC",
            "--service-cluster-ip-range=10.96.0.0/24",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={self.folder / 'sa.pub'}",
            f"--service-account-signing-key-file={self.folder / 'sa.key'}",
            "--endpoint-reconciler-type=none",
            f"--audit-policy-file={self.folder / 'audit.json'}",
            f"--audit-log-path={self.folder / 'audit.log'}",
        )
        until("the API server is ready", self._ready, _START_SECONDS)

    def stop_api_server(self) -> None:
        """Kill it without a word, as a crash does."""
        process = self.processes.pop("kube-apiserver")
        process.kill()
        process.wait()

    def stop(self) -> None:
        """End everything."""
        for process in reversed(self.processes.values()):
            process.kill()
        for process in self.processes.values():
            process.wait()

    def kubeconfig(self, token: str) -> Path:
        """A kubeconfig file for the holder of this token."""
        path = self.folder / f"{token}.kubeconfig"
        authority = self.folder / "certificates" / "apiserver.crt"
        server = f"https://127.0.0.1:{self.api_port}"
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "plane", "cluster": {"server": server, "certificate-authority": str(authority)}}],
            "users": [{"name": token, "user": {"token": token}}],
            "contexts": [{"name": "plane", "context": {"cluster": "plane", "user": token}}],
            "current-context": "plane",
        }
        path.write_text(json.dumps(config))
        return path

    def ask(self, method: str, path: str, body: Any = None, content_type: str = "application/json") -> Any:
        """One request. Raises Refused."""
        data = None if body is None else json.dumps(body).encode()
        url = f"https://127.0.0.1:{self.api_port}{path}"
        request = urllib.request.Request(url, data, method=method)
        request.add_header("Authorization", f"Bearer {self.token}")
        request.add_header("Content-Type", content_type)
        try:
            with urllib.request.urlopen(request, timeout=20, context=ssl._create_unverified_context()) as answer:
                return json.loads(answer.read())
        except HTTPError as error:
            text = error.read().decode()
            raise Refused(error.code, json.loads(text)["message"] if text.startswith("{") else text) from None

    def apply(self, *objects: Mapping[str, Any], namespace: str) -> None:
        """`kubectl apply` as the administrator."""
        bundle = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
        self.kubectl("apply", "--namespace", namespace, "--filename", "-", stdin=bundle)

    def kubectl(self, *arguments: str, stdin: str = "") -> str:
        """Run kubectl as the administrator."""
        command = [str(binary("kubectl")), f"--kubeconfig={self.kubeconfig(ADMIN)}", *arguments]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    def asked_by_trainers(self, namespace: str) -> set[tuple[str, str]]:
        """(resource, verb) of everything that trainers have asked of a namespace."""
        events = map(json.loads, (self.folder / "audit.log").read_text().splitlines())
        found = set()
        for event in events:
            about = event.get("objectRef", {})
            if about.get("namespace") == namespace:
                resource = "/".join(filter(None, (about["resource"], about.get("subresource"))))
                found.add((resource, event["verb"]))
        return found

    def _start_etcd(self) -> None:
        url, peer = f"http://127.0.0.1:{self.etcd_port}", f"http://127.0.0.1:{free_port()}"
        self._run(
            "etcd",
            f"--data-dir={self.folder / 'etcd'}",
            f"--listen-client-urls={url}",
            f"--advertise-client-urls={url}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--unsafe-no-fsync",
        )

    def _run(self, name: str, *options: str) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            command = [str(binary(name)), *options]
            self.processes[name] = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def _ready(self) -> bool:
        for name, process in self.processes.items():
            if process.poll() is not None:
                end = (self.folder / f"{name}.log").read_text(errors="replace")[-2000:]
                raise AssertionError(f"{name} has ended:\n{end}")
        try:
            self.ask("GET", "/api/v1/namespaces/default")
        except (Refused, URLError, OSError, HTTPException):
            return False
        return True


def until(what: str, seen: Callable[[], Any], seconds: float = 60) -> Any:
    """Poll until the answer is true; the answer."""
    deadline = time.monotonic() + seconds
    while not (answer := seen()):
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.1)
    return answer


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
