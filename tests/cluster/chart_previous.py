"""The chart before this one, packaged, with images of its own tag.

No chart was published before 0.1.0. So the previous one is the present one under the version 0.0.9, and its images are the
present ones under the tag 0.0.9: to Helm and to Kubernetes an upgrade from it changes the chart's version, the label that
tells it, and the image of every container, so that every pod is replaced.
"""

import shutil
import subprocess
from pathlib import Path
from typing import Final

import yaml

from images.build import version
from tests.cluster.chart_release import CHART, IMAGES
from tests.cluster.harness.binaries import binary
from tests.cluster.harness.client import Cluster
from tests.cluster.harness.layout import CONTAINERD_SOCKET

PREVIOUS: Final = "0.0.9"


def previous_chart(cluster: Cluster, folder: Path) -> Path:
    """The packaged chart; its images are on the node afterwards."""
    copy = folder / "darkroom"
    shutil.copytree(CHART, copy)
    about = yaml.safe_load((copy / "Chart.yaml").read_text())
    (copy / "Chart.yaml").write_text(yaml.safe_dump(about | {"version": PREVIOUS, "appVersion": PREVIOUS}))
    cluster.helm("package", str(copy), f"--destination={folder}")
    for name in IMAGES:
        _tag(f"localhost/darkroom-{name}:{version()}", f"localhost/darkroom-{name}:{PREVIOUS}")
    return folder / f"darkroom-{PREVIOUS}.tgz"


def _tag(image: str, name: str) -> None:
    address = ("--address", str(CONTAINERD_SOCKET), "--namespace", "k8s.io")
    subprocess.run(
        [str(binary("ctr")), *address, "images", "tag", "--force", image, name], check=True, capture_output=True
    )
