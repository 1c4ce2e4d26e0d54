"""Safetensors headers: good ones read as the library reads them, bad ones refused with the reason."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from artifacts.store import ObjectStore
from converter import safetensors_format
from converter.errors import CheckpointMalformed
from converter.stored import Meter, StoredFile, open_object
from safetensors.numpy import load, save

Put = Callable[[bytes], StoredFile]


@pytest.fixture
def put(store: ObjectStore) -> Put:
    def upload(data: bytes) -> StoredFile:
        store.put("models/x.safetensors", data)
        return open_object(store, "models/x.safetensors", Meter())

    return upload


def with_header(header: Any, values: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + values


def entry(begin: int, end: int, shape: list[Any] | None = None, dtype: Any = "F16") -> dict[str, Any]:
    return {"dtype": dtype, "shape": [(end - begin) // 2] if shape is None else shape, "data_offsets": [begin, end]}


def test_reads_what_the_library_writes(put: Put) -> None:
    arrays = {"a": np.ones((2, 3), np.float32), "b": np.zeros((0,), np.float16), "c": np.array(7)}
    file = put(save(arrays, {"k": "v"}))
    header = safetensors_format.read_header(file)
    assert {t.name: (t.dtype, t.shape) for t in header.tensors} == {
        "a": ("F32", (2, 3)),
        "b": ("F16", (0,)),
        "c": ("I64", ()),
    }
    assert header.metadata == {"k": "v"}
    by_name = {tensor.name: tensor for tensor in header.tensors}
    assert file.read(by_name["a"].offset, by_name["a"].num_bytes) == arrays["a"].tobytes()


def test_the_library_reads_what_is_written() -> None:
    header = safetensors_format.build_header([("é", "F32", (2,)), ("b", "F16", (0,))], {"k": "v"})
    assert header[8:10] == b'{"'  # A1111 refuses anything else
    assert len(header) % 8 == 0
    loaded = load(header + np.array([1, 2], np.float32).tobytes())
    assert loaded["é"].tolist() == [1, 2]
    assert loaded["b"].shape == (0,)


def test_reading_costs_the_header_alone(put: Put) -> None:
    file = put(save({"a": np.ones(1_000_000, np.float32)}))
    safetensors_format.read_header(file)
    assert file.meter.num_bytes < 200


BAD = {
    "empty": (b"", "too few"),
    "header as long as the universe": (with_header({}, b"  ", length=2**63), "claims"),
    "header longer than the file": (with_header({}, b"    ", length=1000), "claims"),
    "header over the limit": (with_header({}, b" " * 64, length=100_000_000), "claims"),
    "not JSON": (with_header(b"{nonsense", b"    "), "cannot be read"),
    "HTML": (b"<!DOCTYPE html><html><body>404", "claims"),
    "a list": (with_header(b"[1, 2, 3]"), "no JSON object"),
    "nested beyond reason": (with_header(b'{"a":' + b"[" * 50_000), "cannot be read"),
    "a name twice": (with_header(b'{"a":{"dtype":"F16","shape":[1],"data_offsets":[0,2]},"a":{}}', b"ab"), "twice"),
    "unknown dtype": (with_header({"a": entry(0, 2, dtype="F99")}, b"ab"), "unknown dtype"),
    "no entry": (with_header({"a": 3}, b"ab"), "unknown dtype"),
    "negative shape": (with_header({"a": entry(0, 2, [-1])}, b"ab"), "invalid shape"),
    "shape of text": (with_header({"a": entry(0, 2, ["1"])}, b"ab"), "invalid shape"),
    "shape that overflows": (with_header({"a": entry(0, 2, [2**40, 2**40])}, b"ab"), "needs"),
    "a thousand dimensions": (with_header({"a": entry(0, 2, [1] * 1000)}, b"ab"), "invalid shape"),
    "offsets beyond the file": (with_header({"a": entry(0, 200)}, b"ab"), "truncated"),
    "offsets backwards": (with_header({"a": entry(2, 0, [1])}, b"ab"), "truncated"),
    "negative offset": (with_header({"a": entry(-2, 0, [1])}, b"ab"), "invalid offsets"),
    "overlap": (with_header({"a": entry(0, 4), "b": entry(2, 6)}, b"abcdef"), "overlaps"),
    "hole": (with_header({"a": entry(0, 2), "b": entry(4, 6)}, b"abcdef"), "hole"),
    "bytes left over": (with_header({"a": entry(0, 2)}, b"abcdef"), "end at byte"),
    "size against shape": (with_header({"a": entry(0, 4, [1])}, b"abcd"), "needs"),
    "metadata of numbers": (with_header({"__metadata__": {"a": 1}}), "__metadata__"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_header_is_refused_with_its_reason(name: str, put: Put) -> None:
    data, reason = BAD[name]
    file = put(data)
    with pytest.raises(CheckpointMalformed, match=reason):
        safetensors_format.read_header(file)
    assert file.meter.num_bytes <= max(len(data), 8)


def test_a_truncated_file_is_refused(put: Put, tiny_models: Path) -> None:
    data = (tiny_models / "sd15-tiny" / "vae" / "diffusion_pytorch_model.safetensors").read_bytes()
    with pytest.raises(CheckpointMalformed, match="truncated"):
        safetensors_format.read_header(put(data[:-1000]))
