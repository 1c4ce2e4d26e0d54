"""How tests and the harness itself talk to the cluster: kubectl, Helm, port-forward."""

import json
import os
import re
import secrets
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster.harness.binaries import binary, search_path
from tests.cluster.harness.layout import KUBECONFIG
from tests.cluster.harness.manifests import namespace
from tests.cluster.harness.processes import NotReady, poll_seconds


class CommandError(Exception):
    """kubectl or Helm ended with an error; the message holds what it printed."""

    def __init__(self, command: list[str], done: "subprocess.CompletedProcess[str]") -> None:
        super().__init__(f"`{' '.join(command)}` ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        self.code = done.returncode
        self.stderr = done.stderr


@dataclass(frozen=True)
class Cluster:
    """The cluster as seen by the holder of a kubeconfig file."""

    kubeconfig: Path = KUBECONFIG

    @property
    def env(self) -> dict[str, str]:
        """The environment for programs that shall find the cluster: KUBECONFIG, and kubectl and helm on the PATH."""
        return os.environ | {"KUBECONFIG": str(self.kubeconfig), "PATH": search_path()}

    def kubectl(self, *arguments: str, stdin: str | None = None, timeout: float = 120) -> str:
        """Run kubectl and return its standard output; CommandError when it fails."""
        return self._run([str(binary("kubectl")), *arguments], stdin, timeout)

    def helm(self, *arguments: str, major: int = 4, timeout: float = 300) -> str:
        """Run Helm of that major version (3 or 4) and return its standard output; CommandError when it fails."""
        return self._run([str(binary({3: "helm3", 4: "helm"}[major])), *arguments], None, timeout)

    def apply(self, *objects: Mapping[str, Any], namespace: str | None = None) -> None:
        """Create or change objects, by server-side apply with strict field validation."""
        bundle = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
        scope = ["--namespace", namespace] if namespace else []
        self.kubectl("apply", "--server-side", "--validate=strict", *scope, "-f", "-", stdin=bundle)

    def get(self, *arguments: str) -> dict[str, Any]:
        """`kubectl get … -o json`, parsed."""
        answer: dict[str, Any] = json.loads(self.kubectl("get", *arguments, "--output", "json"))
        return answer

    def wait(
        self, what: str, seen: Callable[[dict[str, Any]], bool], *arguments: str, seconds: float = 120
    ) -> dict[str, Any]:
        """Poll `get(*arguments)` until `seen` says yes; NotReady with the last answer's status otherwise."""
        begun = time.monotonic()
        while not seen(answer := self.get(*arguments)):
            waited = time.monotonic() - begun
            if waited > seconds:
                status = json.dumps(answer.get("status", answer), indent=1)
                raise NotReady(f"Waiting until {what}: not so after {seconds:.0f} s. Last seen: {status[-4000:]}")
            time.sleep(poll_seconds(waited))
        return answer

    def cluster_ip(self, service: str, namespace: str) -> str:
        """The address of a Service. Programs of this machine reach it, too, for the node is this machine."""
        address: str = self.get("service", service, "--namespace", namespace)["spec"]["clusterIP"]
        return address

    @contextmanager
    def namespace(self, prefix: str) -> Iterator[str]:
        """A new namespace that enforces `restricted`; removed at the end with everything in it."""
        name = f"{prefix[:40].strip('-')}-{secrets.token_hex(3)}"
        self.apply(namespace(name))
        try:
            # Pods are refused until the controllers have made the account that they run under.
            self.kubectl("wait", "--namespace", name, "--for=create", "serviceaccount/default", "--timeout=60s")
            yield name
        finally:
            # From now on nothing is made in it, but its controller looks at it five seconds later only. What others could miss,
            # GPUs say, is free when the pods are gone.
            self.kubectl("delete", "namespace", name, "--wait=false")
            self.kubectl("delete", "pods", "--namespace", name, "--all", "--timeout=120s", timeout=150)

    @contextmanager
    def port_forward(self, target: str, port: int, namespace: str) -> Iterator[int]:
        """Forward a free local port to a port of `pod/…`, `svc/…` or `deploy/…`; yields the local port."""
        command = [str(binary("kubectl")), "port-forward", "--namespace", namespace, target, f":{port}"]
        with subprocess.Popen(
            command, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            try:
                assert process.stdout is not None
                line = process.stdout.readline()
                found = re.match(r"Forwarding from 127\.0\.0\.1:(\d+)", line)
                if found is None:
                    raise NotReady(f"`{' '.join(command)}` printed {line!r} and no port")
                yield int(found[1])
            finally:
                process.terminate()

    def _run(self, command: list[str], stdin: str | None, timeout: float) -> str:
        done = subprocess.run(command, env=self.env, input=stdin, capture_output=True, text=True, timeout=timeout)
        if done.returncode:
            raise CommandError(command, done)
        return done.stdout
