"""Reading .ckpt files: those that torch writes, wrapped and shared in every way, and broken ones."""

import io
import pickle
import zipfile
from collections.abc import Callable
from typing import Any

import pytest
from artifacts.store import ObjectStore
from converter import ckpt_format
from converter.errors import CheckpointMalformed, UnsafePickle
from converter.reading import FileReader
from converter.stored import Meter, StoredFile, open_object

torch = pytest.importorskip("torch")
Put = Callable[[bytes], StoredFile]


@pytest.fixture
def put(store: ObjectStore) -> Put:
    def upload(data: bytes) -> StoredFile:
        store.put("models/x.ckpt", data)
        return open_object(store, "models/x.ckpt", Meter())

    return upload


def saved(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def values(file: StoredFile) -> dict[str, bytes]:
    contents = ckpt_format.read_contents(file)
    reader = FileReader(file)
    read = {t.name: b"".join(reader.chunks(t)) for t in sorted(contents.tensors, key=lambda tensor: tensor.order)}
    reader.finish()
    return read


def test_reads_what_torch_writes(put: Put) -> None:
    state = {
        "half": torch.randn(3, 4).half(),
        "wide": torch.randn(2, 2).double(),
        "ids": torch.arange(77)[None],
        "brain": torch.randn(5).bfloat16(),
        "empty": torch.zeros(0),
        "parameter": torch.nn.Parameter(torch.randn(2)),
        "number": torch.tensor(3.0),
    }
    file = put(saved({"state_dict": state, "global_step": 470_000, "epoch": 6}))
    contents = ckpt_format.read_contents(file)
    assert {t.name: (t.dtype, t.shape) for t in contents.tensors} == {
        "half": ("F16", (3, 4)),
        "wide": ("F64", (2, 2)),
        "ids": ("I64", (1, 77)),
        "brain": ("BF16", (5,)),
        "empty": ("F32", (0,)),
        "parameter": ("F32", (2,)),
        "number": ("F32", ()),
    }
    assert contents.metadata == {"global_step": "470000", "epoch": "6"}
    read = values(file)
    assert read["half"] == state["half"].numpy().tobytes()
    assert read["brain"] == state["brain"].view(torch.int16).numpy().tobytes()
    assert read["ids"] == torch.arange(77).numpy().tobytes()


def test_reads_a_bare_and_a_doubly_wrapped_state_dict(put: Put) -> None:
    for value in ({"w": torch.ones(2)}, {"state_dict": {"state_dict": {"w": torch.ones(2)}}}):
        assert set(values(put(saved(value)))) == {"w"}


def test_reads_a_state_dict_of_a_module(put: Put) -> None:
    """An OrderedDict with _metadata as an attribute."""
    module = torch.nn.Linear(2, 3)
    assert values(put(saved(module.state_dict())))["bias"] == module.bias.detach().numpy().tobytes()


def test_views_of_one_storage_are_read_each(put: Put) -> None:
    base = torch.arange(12, dtype=torch.float32).reshape(3, 4)
    read = values(put(saved({"second": base[1], "all": base, "first": base[0]})))
    assert read["first"] == base[0].numpy().tobytes()
    assert read["second"] == base[1].numpy().tobytes()
    assert read["all"] == base.numpy().tobytes()


def test_transposed_tensors_are_refused_by_name(put: Put) -> None:
    with pytest.raises(CheckpointMalformed, match=r"'turned'.*not row by row"):
        ckpt_format.read_contents(put(saved({"turned": torch.ones(2, 3).T})))


def test_a_full_trainer_checkpoint_of_the_official_kind_is_read(put: Put) -> None:
    """The first SD files carry a Lightning class as a key, and optimizer states."""
    tail = b"X\x09\x00\x00\x00callbacks}cpytorch_lightning.callbacks.model_checkpoint\nModelCheckpoint\n}ss."
    data = saved({"state_dict": {"w": torch.ones(2)}, "optimizer_states": [{"state": {0: torch.ones(2)}}]})
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    root = next(iter(members)).split("/")[0]
    assert members[f"{root}/data.pkl"].endswith(b"u.")
    members[f"{root}/data.pkl"] = members[f"{root}/data.pkl"][:-1] + tail
    assert set(values(put(zipped(members)))) == {"w"}


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


GOOD = saved({"w": torch.arange(64.0)})


def members() -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(GOOD)) as archive:
        return {"archive/" + name.partition("/")[2]: archive.read(name) for name in archive.namelist()}


def without(name: str) -> bytes:
    return zipped({key: value for key, value in members().items() if key != name})


BAD: dict[str, tuple[bytes, str]] = {
    "truncated in the directory": (GOOD[:-40], "zip directory"),
    "truncated in the middle": (GOOD[: len(GOOD) // 2], "zip directory"),
    "no pickle": (without("archive/data.pkl"), "0 members"),
    "two pickles": (zipped(members() | {"other/data.pkl": b"."}), "2 members"),
    "storage missing": (without("archive/data/0"), "not in the file"),
    "storage too short": (zipped(members() | {"archive/data/0": b"abc"}), "3 bytes"),
    "compressed": (zipped(members(), zipfile.ZIP_DEFLATED), "compressed"),
    "big-endian": (zipped(members() | {"archive/byteorder": b"big"}), "big-endian"),
    "no state dict": (zipped(members() | {"archive/data.pkl": pickle.dumps([1, 2], 2)}), "no state dict"),
    "pickle that ends early": (zipped(members() | {"archive/data.pkl": b"\x80\x02}"}), "cannot be read|no end"),
    "a zip of something else": (zipped({"a.txt": b"hello"}), "0 members"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_refused_with_its_reason(name: str, put: Put) -> None:
    data, reason = BAD[name]
    with pytest.raises(CheckpointMalformed, match=reason):
        ckpt_format.read_contents(put(data))


def tensor_pickle(storage: bytes, arguments: bytes) -> bytes:
    return b"\x80\x02}X\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor_v2\n(" + storage + arguments + b"tRs."


STORAGE = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK@tQ"


@pytest.mark.parametrize(
    ("storage", "arguments"),
    [
        (STORAGE, b"K\x00K\x08\x85K\x01\x85"),  # the good one
        (STORAGE, b"K@K\x08\x85K\x01\x85"),
        (STORAGE, b"J\xff\xff\xff\xffK\x08\x85K\x01\x85"),
        (STORAGE, b"K\x00J\x00\x00\x00\x7f\x85K\x01\x85"),
        (STORAGE, b"K\x00K\x08\x85K\x00\x85"),
        (STORAGE, b"K\x00K\x08\x85)"),
        (STORAGE, b"NNN"),
        (STORAGE, b""),
        (b"N", b"K\x00K\x08\x85K\x01\x85"),
        (STORAGE.replace(b"K@tQ", b"J\xff\xff\xff\x7ftQ"), b"K\x00K\x08\x85K\x01\x85"),
        (STORAGE.replace(b"FloatStorage", b"float32"), b"K\x00K\x08\x85K\x01\x85"),
        (STORAGE.replace(b"X\x01\x00\x00\x000", b"X\x09\x00\x00\x000/../../x"), b"K\x00K\x08\x85K\x01\x85"),
    ],
)
def test_a_tensor_outside_its_storage_is_refused(storage: bytes, arguments: bytes, put: Put) -> None:
    file = put(zipped(members() | {"archive/data.pkl": tensor_pickle(storage, arguments)}))
    if storage == STORAGE and arguments == b"K\x00K\x08\x85K\x01\x85":
        assert ckpt_format.read_contents(file).tensors[0].shape == (8,)
        return
    with pytest.raises(CheckpointMalformed):
        ckpt_format.read_contents(file)


def test_a_hostile_pickle_inside_is_named(put: Put) -> None:
    evil = b"\x80\x02}X\x01\x00\x00\x00wcposix\nsystem\nX\x04\x00\x00\x00true\x85Rs."
    with pytest.raises(UnsafePickle, match=r"posix\.system"):
        ckpt_format.read_contents(put(zipped(members() | {"archive/data.pkl": evil})))
