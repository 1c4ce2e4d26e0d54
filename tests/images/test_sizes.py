"""Sizes of images, measured on small archives that are made here; and the table of the page."""

import hashlib
import io
import json
import random
import tarfile
from pathlib import Path

import pytest

from images import sizes
from images.archive import layers
from images.catalogue import IMAGES, ROOT
from images.sizes import Sizes

PAGE = ROOT / "docs" / "images.md"


def noise(seed: int, num_bytes: int) -> bytes:
    """Bytes that gzip cannot shrink."""
    return random.Random(seed).randbytes(num_bytes)


def write_archive(path: Path, contents: list[bytes]) -> None:
    """An image's archive with these layers."""
    config = {"rootfs": {"diff_ids": [f"sha256:{hashlib.sha256(content).hexdigest()}" for content in contents]}}
    layers = {f"{number}.tar": content for number, content in enumerate(contents)}
    manifest = [{"Config": "config.json", "Layers": list(layers)}]
    files = layers | {"config.json": json.dumps(config).encode(), "manifest.json": json.dumps(manifest).encode()}
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))


def test_layers_are_measured_unpacked_and_gzipped(tmp_path: Path) -> None:
    write_archive(tmp_path / "x.tar", [bytes(1_000_000), noise(1, 1_000_000)])
    empty, full = layers(tmp_path / "x.tar", {})
    assert (empty.num_bytes, full.num_bytes) == (1_000_000, 1_000_000)
    assert empty.pulled_bytes < 2_000
    assert 1_000_000 < full.pulled_bytes < 1_001_000


def test_layers_that_are_not_what_the_image_says_are_told(tmp_path: Path) -> None:
    write_archive(tmp_path / "x.tar", [b"brick" * 1000])
    (tmp_path / "x.tar").write_bytes((tmp_path / "x.tar").read_bytes().replace(b"brick", b"brack"))
    with pytest.raises(ValueError, match=r"0\.tar is compressed or damaged"):
        layers(tmp_path / "x.tar", {})


def test_what_several_images_have_is_shared(tmp_path: Path) -> None:
    base = noise(0, 10_000)
    for number, image in enumerate(IMAGES, 1):
        write_archive(tmp_path / f"{image.name}.tar", [base, noise(number, 30_000), noise(100 + number, 2_000)])
    for one in sizes.measure(tmp_path):
        assert one.unpacked == 42_000
        assert 10_000 < one.shared < 10_100
        assert 30_000 < one.dependencies < 30_100
        assert 2_000 < one.code < 2_100
        assert one.shared + one.dependencies + one.code == one.pulled


def test_a_table_is_read_back(tmp_path: Path) -> None:
    measured = [Sizes("darkroom-x", 500_000_000, 200_000_000, 90_000_000, 1_500_000)]
    table = sizes.as_table(measured)
    assert "| `darkroom-x` | 500 | 200 | 90 | 108 | 1.5 |" in table
    assert sizes.differences(measured, table) == []
    larger = [Sizes("darkroom-x", 560_000_000, 200_000_000, 90_000_000, 1_500_000)]
    assert sizes.differences(larger, table) == ["darkroom-x takes 560 MB unpacked; the table says 500"]
    assert sizes.differences(measured, "") == ["darkroom-x is not in the table"]


@pytest.mark.parametrize("torch", ["cpu", "cuda"])
def test_the_page_has_a_row_for_every_image(torch: str) -> None:
    match = sizes.TABLES[torch].search(PAGE.read_text())
    assert match
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in match[0].splitlines()]
    assert tuple(rows[0]) == sizes.COLUMNS
    assert [row[0] for row in rows[2:]] == [f"`{name}`" for name in sizes.named(torch)]
    for _, unpacked, pulled, *parts in rows[2:]:
        assert float(unpacked) > float(pulled)
        assert sum(map(float, parts)) == pytest.approx(float(pulled), abs=1.6)  # each is rounded


def test_cuda_builds_have_names_of_their_own() -> None:
    assert sizes.named("cuda") == ["darkroom-captioner-cuda", "darkroom-dreambooth-cuda", "darkroom-webui-engine-cuda"]
    assert sizes.named("cpu") == [image.name for image in IMAGES]
