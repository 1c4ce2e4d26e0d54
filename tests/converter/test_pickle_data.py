"""Pickles that want more than data: refused by name, never executed."""

import builtins
import collections
import functools
import io
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from converter import pickle_data
from converter.errors import CheckpointMalformed, UnsafePickle
from converter.pickle_data import Call, Persistent, Symbol


class Calls:
    """Pickles as a call of `function`; what `pickle.loads` of it would do is what an attacker wants."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> Any:
        return self.function, self.arguments


def touch(marker: Path) -> str:
    return f"open({str(marker)!r}, 'w').close()"


def hostile(marker: Path) -> dict[str, bytes]:
    """What an attacker would write. Each one makes `marker` if it is executed."""
    code = touch(marker)
    shell = f"touch {marker}"
    opcodes = {
        "by inst": b"(S'" + shell.encode() + b"'\nios\nsystem\n.",
        "by obj": b"(cos\nsystem\nS'" + shell.encode() + b"'\no.",
        "by stack global": b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c"
        + bytes([len(shell)])
        + shell.encode()
        + b"\x85R.",
        "by memo and dup": b"\x80\x02cos\nsystem\nq\x00h\x002X"
        + len(shell).to_bytes(4, "little")
        + shell.encode()
        + b"\x85R.",
        "by extension": b"\x80\x02\x82\x01)R.",
        "by persistent text": b"Pos.system\n.",
        "allowed function with attributes": b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}b.",
        "call of an inert class": b"\x80\x02ctorch\nFloatStorage\nK\x05\x85R.",
        "new object": b"\x80\x02ccollections\nOrderedDict\n)\x81.",
        "attribute path in a name": b"\x80\x04\x8c\x0bcollections\x8c\x14OrderedDict.__init__\x93.",
    }
    objects = {
        "os.system": Calls(os.system, shell),
        "subprocess": Calls(subprocess.call, ["touch", str(marker)]),
        "eval": Calls(eval, f"__import__('os').system({shell!r})"),
        "exec": Calls(exec, code),
        "getattr chain": Calls(getattr, Calls(__import__, "os"), "system"),
        "partial": Calls(functools.partial, os.system, shell),
        "open": Calls(open, str(marker), "w"),
        "map": Calls(builtins.list, Calls(map, exec, [code])),
        "nested pickle": Calls(pickle.loads, pickle.dumps(Calls(os.system, shell))),
        "inside a tensor": {"state_dict": collections.OrderedDict(weight=Calls(os.system, shell))},
    }
    pickles = {
        f"{name}, protocol {protocol}": pickle.dumps(value, protocol)
        for name, value in objects.items()
        for protocol in (0, 2, 4)
    }
    return pickles | opcodes


NAMES = sorted(hostile(Path("/marker")))


@pytest.mark.parametrize("name", NAMES)
def test_a_hostile_pickle_is_refused_without_running(name: str, tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    with pytest.raises(UnsafePickle) as caught:
        pickle_data.load("evil.ckpt", hostile(marker)[name])
    assert not marker.exists()
    assert caught.value.file == "evil.ckpt"
    assert caught.value.refused


def test_the_attacks_are_real(tmp_path: Path) -> None:
    """If these did nothing under pickle itself, refusing them would prove nothing."""
    marker = tmp_path / "executed"
    subprocess.run(
        [sys.executable, "-c", "import pickle,sys; pickle.load(sys.stdin.buffer)"],
        input=hostile(marker)["os.system, protocol 2"],
        check=True,
    )
    assert marker.exists()


@pytest.mark.parametrize(
    ("data", "refused"),
    [
        (pickle.dumps(Calls(os.system, "true"), 2), "system"),
        (pickle.dumps(Calls(eval, "1"), 2), "eval"),
        (b"\x80\x02ctorch.hub\nload\n.", "torch.hub.load"),
    ],
)
def test_the_refusal_names_what_was_wanted(data: bytes, refused: str) -> None:
    with pytest.raises(UnsafePickle, match=refused):
        pickle_data.load("evil.ckpt", data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80\x02",
        b"\x80\x02}",
        b"\x80\x02.",
        b"\x80\x02h\x05.",
        b"\x80\x02u.",
        b"\x80\x02}X\x01\x00\x00\x00a}}ss",
        b"\x80\x02X\xff\xff\xff\x7fabc.",
        b"\x80\x02)" + b"\x85" * 200_000 + b"}" + b")" + b"s.",
        b"\x80\x02}(" + b")" * 3 + b"u.",
        b"\x80\x02]" + b"q\x01" * 600_000 + b".",
        b"I" + b"9" * 10_000 + b"\n.",
        b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f.",
        b"\xff\xfe nonsense",
    ],
)
def test_a_broken_or_huge_pickle_is_refused(data: bytes) -> None:
    with pytest.raises(CheckpointMalformed):
        pickle_data.load("broken.ckpt", data)


def test_a_memo_index_of_four_billion_costs_nothing() -> None:
    """The C unpickler would reserve 32 GiB for it."""
    assert pickle_data.load("file", b"\x80\x02K\x07r\xff\xff\xff\xff.") == 7


def test_a_deep_tuple_as_key_does_not_overflow_the_stack() -> None:
    with pytest.raises(CheckpointMalformed, match="cannot be a key"):
        pickle_data.load("file", b"\x80\x02})" + b"\x85" * 100_000 + b"K\x01s.")


@pytest.mark.parametrize("protocol", range(6))
def test_plain_data_comes_back(protocol: int) -> None:
    value = {"a": [1, 2.5, -7, 10**30], "b": (None, True, False), "c": {"d": "text é"}, 3: "x" * 300, "e": ()}
    assert pickle_data.load("file", pickle.dumps(value, protocol)) == value


def test_what_torch_writes_becomes_records() -> None:
    buffer = io.BytesIO()
    pickler = pickle.Pickler(buffer, 2)
    pickler.dump(collections.OrderedDict(weight=1))
    assert pickle_data.load("file", buffer.getvalue()) == {"weight": 1}
    data = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\nK\x00Q\x85R."
    call = pickle_data.load("file", data)
    assert isinstance(call, Call)
    assert call.symbol == "torch._utils _rebuild_tensor_v2"
    assert isinstance(call.arguments[0], Persistent)
    assert pickle_data.load("file", b"\x80\x02ctorch\nHalfStorage\n.") == Symbol("torch HalfStorage")
