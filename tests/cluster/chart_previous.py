"""The chart before this one, as it was packaged, and images of its own tag.

`charts/` holds the package: the chart as it first was complete, under the version 0.0.9, for none was published before 0.1.0. A
release puts its own package in the place of it. The images of that version are the present ones under its tag: so an upgrade
from it changes the chart, the label that tells its version, and the image of every container, and every pod is replaced.
"""

import subprocess
from pathlib import Path
from typing import Final

from images.build import version
from tests.cluster.chart_release import IMAGES
from tests.cluster.harness.binaries import binary
from tests.cluster.harness.layout import CONTAINERD_SOCKET

(CHART,) = Path(__file__).with_name("charts").glob("darkroom-*.tgz")
"""The package."""
PREVIOUS: Final = CHART.stem.removeprefix("darkroom-")


def tag_images() -> None:
    """Give the images on the node the names that the previous chart asks for."""
    for name in IMAGES:
        _tag(f"localhost/darkroom-{name}:{version()}", f"localhost/darkroom-{name}:{PREVIOUS}")


def _tag(image: str, name: str) -> None:
    address = ("--address", str(CONTAINERD_SOCKET), "--namespace", "k8s.io")
    subprocess.run(
        [str(binary("ctr")), *address, "images", "tag", "--force", image, name], check=True, capture_output=True
    )
