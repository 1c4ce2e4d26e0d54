"""A container of ours ends when it is told to, also before its program has said what it does then."""

import contextlib
from collections.abc import Callable

from tests.cluster.harness.client import Cluster, CommandError
from tests.cluster.harness.manifests import pod, restricted_pod

# As a program that still imports: it has no handler of its own.
IMPORTING = "import time; print('starting', flush=True); time.sleep(600)"
SIGTERM_ENDED_IT = 143


def test_sigterm_ends_a_program_that_is_still_starting(
    cluster: Cluster, namespace: str, images_on_node: Callable[[str], str]
) -> None:
    container = {
        "name": "program",
        "image": images_on_node("converter"),
        "imagePullPolicy": "Never",
        "command": ["python", "-c", IMPORTING],
    }
    cluster.apply(pod("starting", restricted_pod(container)), namespace=namespace)
    here = ("--namespace", namespace)
    cluster.kubectl("wait", *here, "--for=condition=Ready", "pod/starting", "--timeout=60s")
    cluster.wait(
        "it prints", lambda _: "starting" in cluster.kubectl("logs", "starting", *here), "pod", "starting", *here
    )
    with contextlib.suppress(CommandError):  # it may be killed with the container
        cluster.kubectl(
            "exec", "starting", *here, "--", "python", "-c", "import os, signal; os.kill(1, signal.SIGTERM)"
        )
    ended = cluster.wait("it ends", lambda found: found["status"]["phase"] == "Failed", "pod", "starting", *here)
    (status,) = ended["status"]["containerStatuses"]
    assert status["state"]["terminated"]["exitCode"] == SIGTERM_ENDED_IT
