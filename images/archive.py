"""Reading an image's archive (docker's format): its layers and their sizes."""

import hashlib
import json
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_MANIFEST = "manifest.json"
_CHUNK_BYTES = 1024 * 1024
_GZIP = 31  # zlib's number for a gzip stream of the usual window


@dataclass(frozen=True)
class Layer:
    """One layer. digest: of its uncompressed content; num_bytes: unpacked; pulled_bytes: gzipped, as registries send it."""

    digest: str
    num_bytes: int
    pulled_bytes: int


def layers(archive: Path, known: dict[str, Layer]) -> list[Layer]:
    """The layers of an image from the lowest up. What `known` has by its digest is not measured again; it is added to.

    Raises ValueError for layers that are compressed or damaged.
    """
    with tarfile.open(archive) as tar:
        image = _json(tar, _MANIFEST)[0]
        digests = _json(tar, image["Config"])["rootfs"]["diff_ids"]
        return [_measure(tar, name, digest, known) for name, digest in zip(image["Layers"], digests, strict=True)]


def _measure(tar: tarfile.TarFile, name: str, digest: str, known: dict[str, Layer]) -> Layer:
    if digest not in known:
        file = tar.extractfile(name)
        assert file is not None
        packer, content = zlib.compressobj(6, wbits=_GZIP), hashlib.sha256()
        num_bytes = pulled_bytes = 0
        while chunk := file.read(_CHUNK_BYTES):
            content.update(chunk)
            num_bytes += len(chunk)
            pulled_bytes += len(packer.compress(chunk))
        if f"sha256:{content.hexdigest()}" != digest:
            raise ValueError(f"{tar.name!r}: {name} is compressed or damaged; write the archive anew, not compressed")
        known[digest] = Layer(digest, num_bytes, pulled_bytes + len(packer.flush()))
    return known[digest]


def _json(tar: tarfile.TarFile, name: str) -> Any:
    file = tar.extractfile(name)
    assert file is not None
    return json.loads(file.read())
