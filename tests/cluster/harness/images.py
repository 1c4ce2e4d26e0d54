"""Container images without a registry: images of one static program, and bringing any archive onto the real node."""

import gzip
import hashlib
import io
import json
import subprocess
import tarfile
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tests.cluster.harness.binaries import binary
from tests.cluster.harness.layout import CONTAINERD_SOCKET, MINIO_IMAGE, PAUSE_IMAGE, PROBE_IMAGE, STATE

_OCI: Final = "application/vnd.oci.image"
_CTR: Final = (str(binary("ctr")), "--address", str(CONTAINERD_SOCKET), "--namespace", "k8s.io")
_LAYOUT: Final = STATE / "image-layout"
_PUSHING: Final = threading.Lock()


class ImageError(Exception):
    """An image could not be brought onto the node."""


def import_own_images() -> None:
    """The images that the harness itself brings: pause, probe (see programs/probe) and MinIO."""
    own = ((PAUSE_IMAGE, "pause"), (PROBE_IMAGE, "probe"), (MINIO_IMAGE, "minio"))
    with tempfile.TemporaryDirectory(dir=STATE) as work:
        for name, program in own:
            archive = Path(work) / f"{program}.tar"
            write_image(archive, name, {program: binary(program)}, [f"/{program}"])
            import_image(archive)


def import_image(source: Path | str) -> None:
    """Bring an image onto the node: an archive file (OCI or `docker save`), or the name of one in buildah's storage.

    Pods that use it set `imagePullPolicy: Never` or `IfNotPresent`; a name begins with `localhost/`.
    """
    if isinstance(source, Path):
        _run([*_CTR, "images", "import", str(source)])
        return
    with _PUSHING:  # which reads and writes the layout's index
        # Into one folder, where a layer that images share lies once. Hardly compressed: it goes no further than this machine.
        _run(["buildah", "push", "--compression-level=1", source, f"oci:{_LAYOUT}:{source}"])
        (entry,) = (each for each in _read(_LAYOUT / "index.json")["manifests"] if _name_of(each) == source)
    _import_from_layout(entry)
    if source not in node_images():
        raise ImageError(f"buildah's image {source} was imported, but the node does not list it: {node_images()}")


def _import_from_layout(entry: Mapping[str, Any]) -> None:
    """Import an image without the layers that came with images before."""
    manifest = _read(_blob(entry["digest"]))
    there = set(_run([*_CTR, "content", "list", "--quiet"]).split())
    wanted = [entry["digest"], *(each["digest"] for each in (manifest["config"], *manifest["layers"]))]
    with tempfile.TemporaryDirectory(dir=STATE) as work:
        archive = Path(work) / "new.tar"
        with tarfile.open(archive, "w") as tar:
            _add(tar, "oci-layout", (_LAYOUT / "oci-layout").read_bytes(), 0o644)
            _add(tar, "index.json", _json({"schemaVersion": 2, "manifests": [entry]}), 0o644)
            for digest in dict.fromkeys(wanted):
                if digest not in there:
                    tar.add(_blob(digest), f"blobs/sha256/{digest[7:]}")
        import_image(archive)


def _name_of(entry: Mapping[str, Any]) -> str:
    """The name that buildah has given to an entry of the layout; "" for one whose name a newer image has taken."""
    return str(entry.get("annotations", {}).get("org.opencontainers.image.ref.name", ""))


def _blob(digest: str) -> Path:
    return _LAYOUT / "blobs/sha256" / digest.removeprefix("sha256:")


def _read(file: Path) -> Any:
    return json.loads(file.read_bytes())


def node_images() -> list[str]:
    """Names of the images on the node."""
    return _run([*_CTR, "images", "list", "--quiet"]).split()


def write_image(archive: Path, name: str, files: Mapping[str, Path], entrypoint: Sequence[str]) -> None:
    """Write an OCI archive of an image that holds nothing but these executables, in its root folder."""
    plain = _layer(files)
    layer = gzip.compress(plain, compresslevel=1)
    config = _json(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Entrypoint": list(entrypoint), "User": "10001:10001", "Env": ["HOME=/tmp"]},
            "rootfs": {"type": "layers", "diff_ids": [_digest(plain)]},
        }
    )
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": f"{_OCI}.manifest.v1+json",
            "config": _descriptor(config, f"{_OCI}.config.v1+json"),
            "layers": [_descriptor(layer, f"{_OCI}.layer.v1.tar+gzip")],
        }
    )
    entry = _descriptor(manifest, f"{_OCI}.manifest.v1+json")
    entry["annotations"] = {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name}
    members = {
        "oci-layout": _json({"imageLayoutVersion": "1.0.0"}),
        "index.json": _json({"schemaVersion": 2, "manifests": [entry]}),
        **{f"blobs/sha256/{_digest(blob)[7:]}": blob for blob in (layer, config, manifest)},
    }
    with tarfile.open(archive, "w") as tar:
        for path, data in members.items():
            _add(tar, path, data, 0o644)


def _layer(files: Mapping[str, Path]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, source in files.items():
            _add(tar, name, source.read_bytes(), 0o755)
    return buffer.getvalue()


def _add(tar: tarfile.TarFile, name: str, data: bytes, mode: int) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(data), mode
    tar.addfile(member, io.BytesIO(data))


def _descriptor(data: bytes, media_type: str) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": _digest(data), "size": len(data)}


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


def _run(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise ImageError(f"`{' '.join(command)}` ended with {done.returncode}: {done.stderr.strip()[-2000:]}")
    return done.stdout
