"""Kinds of operators that are not here: the API server knows them and checks their objects, and nothing acts on these."""

from tests.cluster.harness.binaries import folder_of
from tests.cluster.harness.client import Cluster
from tests.cluster.harness.versions import CUSTOM_RESOURCES


def define(cluster: Cluster) -> None:
    """Make the kinds of `versions.CUSTOM_RESOURCES` known; returns when they can be used."""
    files = sorted(path for kinds in CUSTOM_RESOURCES for path in folder_of(kinds).iterdir())
    # Server-side, because some are too large for the annotation that a plain apply leaves.
    cluster.kubectl("apply", "--server-side", *(f"--filename={path}" for path in files))
    cluster.kubectl("wait", "--for=condition=Established", "customresourcedefinitions", "--all", "--timeout=60s")
