"""A written .ckpt as its readers see it: torch with weights_only, Python's zipfile, A1111's check, picklescan."""

import io
import re
import zipfile
from dataclasses import dataclass

import pytest
from converter import ckpt_writer
from picklescan import scanner


@dataclass(frozen=True)
class Tensor:
    name: str
    dtype: str
    shape: tuple[int, ...]
    data: bytes


TENSORS = [
    Tensor("ids", "I64", (1, 3), b"".join(n.to_bytes(8, "little") for n in range(3))),
    Tensor("v_pred", "F32", (0,), b""),
    Tensor("model.half", "F16", (2, 2), bytes.fromhex("003c0040004200c4")),
    Tensor("model.brain", "BF16", (3,), bytes.fromhex("803f00404040")),
    Tensor("model.wide", "F64", (), bytes(8)),
    Tensor("modèle.float", "F32", (5, 1, 3), bytes(60)),
]


@pytest.fixture(scope="module")
def written() -> bytes:
    output = io.BytesIO()
    ckpt_writer.write(output, TENSORS, lambda index: [TENSORS[index].data[:3], memoryview(TENSORS[index].data)[3:]])
    return output.getvalue()


@pytest.mark.parametrize("mmap", [False, True])
def test_torch_loads_it_without_trust(written: bytes, mmap: bool, tmp_path_factory: pytest.TempPathFactory) -> None:
    torch = pytest.importorskip("torch")
    path = tmp_path_factory.mktemp("ckpt") / "model.ckpt"
    path.write_bytes(written)
    loaded = torch.load(path, weights_only=True, mmap=mmap)
    assert loaded["global_step"] == 0
    state = loaded["state_dict"]
    assert list(state) == [tensor.name for tensor in TENSORS]
    assert state["ids"].tolist() == [[0, 1, 2]]
    assert state["model.half"].tolist() == [[1, 2], [3, -4]]
    assert state["model.brain"].tolist() == [1, 2, 3]
    assert state["v_pred"].shape == (0,)
    assert state["model.wide"].dtype == torch.float64
    assert state["modèle.float"].is_contiguous()


def test_zip_is_sound_and_aligned(written: bytes) -> None:
    archive = zipfile.ZipFile(io.BytesIO(written))
    assert archive.testzip() is None  # checksums
    for entry in archive.infolist():
        assert entry.compress_type == zipfile.ZIP_STORED
        header = written[entry.header_offset : entry.header_offset + 30]
        start = (
            entry.header_offset + 30 + int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
        )
        assert start % 64 == 0
        assert written[start : start + entry.file_size] == archive.read(entry)


def test_a1111_finds_no_member_it_refuses(written: bytes) -> None:
    # The rule of its modules/safe.py, in the older, narrower form.
    allowed = re.compile(r"^([^/]+)/((data/\d+)|version|(data\.pkl))$")
    names = zipfile.ZipFile(io.BytesIO(written)).namelist()
    assert all(allowed.match(name) for name in names)
    assert sum(name.endswith("/data.pkl") for name in names) == 1


def test_scanners_find_nothing(written: bytes) -> None:
    result = scanner.scan_bytes(io.BytesIO(written), "model.ckpt", ".ckpt")
    assert (result.infected_files, result.issues_count, result.suspicious_count, result.scan_err) == (0, 0, 0, False)


def test_two_files_of_the_same_tensors_are_the_same_bytes(written: bytes) -> None:
    output = io.BytesIO()
    ckpt_writer.write(output, TENSORS, lambda index: [TENSORS[index].data])
    assert output.getvalue() == written


def test_values_of_the_wrong_size_are_an_error() -> None:
    with pytest.raises(ValueError, match="announced"):
        ckpt_writer.write(io.BytesIO(), TENSORS[:1], lambda index: [b"short"])


class Counter(io.RawIOBase):
    """Keeps the beginning and the end of what is written, and counts the rest."""

    def __init__(self) -> None:
        self.size = 0
        self.large_at = -1
        self.parts: list[tuple[int, bytes]] = []

    def write(self, data: "bytes | memoryview") -> int:  # type: ignore[override]
        if len(data) < 1 << 20:
            self.parts.append((self.size, bytes(data)))
        self.size += len(data)
        return len(data)


def test_files_beyond_four_gigabytes_are_zip64(monkeypatch: pytest.MonkeyPatch) -> None:
    """One tensor of 4.3 GB (zeros that are never stored), then a small one behind it."""
    monkeypatch.setattr(ckpt_writer.zlib, "crc32", lambda data, crc: 0)
    block = bytes(1 << 26)
    tensors = [Tensor("large", "F16", (65, 1 << 25), b""), Tensor("small", "F16", (2,), b"abcd")]
    output = Counter()
    ckpt_writer.write(output, tensors, lambda index: [block] * 65 if index == 0 else [b"abcd"])

    class Sparse(io.RawIOBase):
        """The same file, with zeros where the large tensor was."""

        position = 0

        def seekable(self) -> bool:
            return True

        def tell(self) -> int:
            return self.position

        def seek(self, offset: int, whence: int = 0) -> int:
            self.position = offset + {0: 0, 1: self.position, 2: output.size}[whence]
            return self.position

        def read(self, size: int = -1) -> bytes:
            end = output.size if size < 0 else min(self.position + size, output.size)
            result = bytearray(end - self.position)
            for start, part in output.parts:
                low, high = max(start, self.position), min(start + len(part), end)
                if low < high:
                    result[low - self.position : high - self.position] = part[low - start : high - start]
            self.position = end
            return bytes(result)

    archive = zipfile.ZipFile(Sparse())  # type: ignore[arg-type]
    large, small = archive.getinfo("archive/data/0"), archive.getinfo("archive/data/1")
    assert large.file_size == 65 << 26
    assert small.header_offset > 1 << 32
    with archive.open(small) as member:
        assert member._expected_crc == 0  # type: ignore[attr-defined]
        assert member._fileobj.read(4) == b"abcd"  # type: ignore[attr-defined]
