"""Our own images on the real node, as their sources are now: built by `images.build` and imported where that is needed.

What was built from the same files before is not built again (`out/cluster-images.json` remembers), and what the node has
already is not imported again. DARKROOM_E2E_BUILD=0 takes the images in buildah's storage as they are; WHEELS may name a folder
with a CPU wheel of torch.
"""

import hashlib
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Final

from images import base
from images.build import reference, version
from images.catalogue import IMAGES, ROOT, Image
from tests.cluster.harness.binaries import binary
from tests.cluster.harness.images import import_image
from tests.cluster.harness.layout import CONTAINERD_SOCKET

_SHARED: Final = ("libs", "protos", "models/tiny", "images", "pyproject.toml", "uv.lock", "requirements-torch.txt")
_BUILT: Final = ROOT / "out/cluster-images.json"
_LOCK: Final = threading.Lock()


def bring(short: str) -> str:
    """Have `darkroom-<short>` on the node; returns its full name. Raises what `built` raises."""
    (image,) = (image for image in IMAGES if image.name == f"darkroom-{short}")
    name = built(image)
    wanted, there = f"sha256:{_built_id(name)}", _on_node()
    if name not in there or there[name] != there.get(wanted):
        import_image(name)
    return name


def built(image: Image) -> str:
    """Have the image in buildah's storage; returns its full name. Raises CalledProcessError after what the build printed."""
    name = reference(image, "localhost", version(), "cpu")
    if os.environ.get("DARKROOM_E2E_BUILD") != "0":
        _build(image, name)
    return name


def _build(image: Image, name: str) -> None:
    """Build the image unless the one in buildah's storage was made of the same files."""
    sources = _digest([str(Path(image.dockerfile).parent), *_SHARED])
    if _built_before().get(name) == [sources, _built_id(name)]:
        return
    with _LOCK:
        base_image = base.ensure()
    wheels = [f"--wheels={os.environ['WHEELS']}"] if os.environ.get("WHEELS") else []
    command = [sys.executable, "-m", "images.build", image.name, "--engine=buildah", f"--base={base_image}", *wheels]
    subprocess.run(command, cwd=ROOT, check=True, stdout=sys.stderr)
    with _LOCK:
        _BUILT.parent.mkdir(exist_ok=True)
        _BUILT.write_text(json.dumps(_built_before() | {name: [sources, _built_id(name)]}, indent=1))


def _built_before() -> dict[str, list[str]]:
    """Digest of the sources and id of every image built here, by name."""
    found: dict[str, list[str]] = json.loads(_BUILT.read_text()) if _BUILT.exists() else {}
    return found


def _digest(paths: list[str]) -> str:
    """Changes with the names and contents of the files below these paths; ignored files do not count."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *paths]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    digest = hashlib.sha256()
    for path in sorted({name for name in listed.split("\0") if name and (ROOT / name).is_file()}):
        digest.update(f"{path}\0{hashlib.sha256((ROOT / path).read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def _built_id(name: str) -> str:
    """Id of the image in buildah's storage, "" if there is none."""
    command = ["buildah", "inspect", "--type=image", "--format={{.FromImageID}}", name]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


def _on_node() -> dict[str, str]:
    """Digests of the node's images by all of their names, of which one is their id."""
    command = [str(binary("ctr")), "--address", str(CONTAINERD_SOCKET), "--namespace", "k8s.io", "images", "list"]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    lines = [line.split() for line in listed.splitlines()[1:]]
    return {name: digest for name, _, digest, *_ in lines}
