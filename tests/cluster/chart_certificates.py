"""Certificates for releases: made by an authority of the tests, alone or in the place of cert-manager."""

import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.cluster.harness.client import Cluster

_LOOK_SECONDS = 1.0


def certificate(folder: Path, names: list[str]) -> None:
    """ca.crt, and tls.crt and tls.key for these names, signed by it."""
    lines = "\n".join(f"DNS.{index} = {name}" for index, name in enumerate(names, 1))
    (folder / "names").write_text(f"subjectAltName = @names\n[names]\n{lines}\n")
    authority = (
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-subj",
        "/CN=tests",
        "-days",
        "2",
    )
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=darkroom")
    for command in (
        ("req", *authority, "-keyout", "ca.key", "-out", "ca.crt"),
        ("req", *key, "-keyout", "tls.key", "-out", "tls.csr"),
        ("x509", "-req", "-in", "tls.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2",
         "-extfile", "names", "-out", "tls.crt"),
    ):  # fmt: skip
        subprocess.run(["openssl", *command], cwd=folder, check=True, capture_output=True)


@contextmanager
def signing(cluster: Cluster, namespace: str) -> Iterator[None]:
    """Do what cert-manager would, which the cluster does not have: write the Secret of each Certificate of a namespace."""
    ended = threading.Event()

    def work() -> None:
        signed: set[str] = set()
        while not ended.wait(_LOOK_SECONDS):
            for wanted in cluster.get("certificates.cert-manager.io", "--namespace", namespace)["items"]:
                if wanted["metadata"]["name"] not in signed:
                    _sign(cluster, wanted)
                    signed.add(wanted["metadata"]["name"])

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _sign(cluster: Cluster, wanted: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        certificate(Path(folder), wanted["spec"]["dnsNames"])
        files = [f"--from-file={name}={Path(folder) / name}" for name in ("tls.crt", "tls.key", "ca.crt")]
        secret = ("create", "secret", "generic", wanted["spec"]["secretName"], "--type=kubernetes.io/tls", *files)
        cluster.kubectl(*secret, "--namespace", wanted["metadata"]["namespace"])
