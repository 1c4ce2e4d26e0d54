"""A pickle machine that can build data and nothing else: no import, no call, no attribute is ever made.

`ckpt_format` gives it the untrusted data.pkl of a checkpoint. The opcodes come from `pickletools.genops`, which only parses.
What a pickle would import becomes a `Symbol`, and only names of the allow-list may; what it would call becomes a `Call`
of an allowed symbol. The names are those that A1111's own check accepts, so what passes here loads there.
"""

import pickletools
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from converter.errors import CheckpointMalformed, UnsafePickle

# A model of 2500 tensors needs 100,000 opcodes and 0.4 MB. An opcode of one byte can cost 100 bytes of memory.
MAX_PICKLE_BYTES: Final = 4 * 1024**2
_MAX_OPCODES: Final = 500_000

CALLABLE: Final = frozenset(
    {
        "collections OrderedDict",
        "torch._utils _rebuild_tensor_v2",
        "torch._utils _rebuild_parameter",
        # What training frameworks leave beside the weights; it stays an opaque Call.
        "_codecs encode",
        "numpy dtype",
        "numpy.core.multiarray scalar",
        "numpy._core.multiarray scalar",
    }
)
INERT: Final = CALLABLE | frozenset(
    {
        *(f"torch {kind}Storage" for kind in ("Double", "Float", "Half", "BFloat16", "Long", "Int", "Short", "Byte")),
        *(f"torch {kind}" for kind in ("float64", "float32", "float16", "bfloat16", "int64", "int32")),
        # A key of the official SD1 files; named there, never called.
        "pytorch_lightning.callbacks.model_checkpoint ModelCheckpoint",
        "pytorch_lightning.callbacks ModelCheckpoint",
    }
)


@dataclass(frozen=True)
class Symbol:
    """A name that the pickle wanted to import, as "module name"."""

    name: str


@dataclass(frozen=True, eq=False)
class Persistent:
    """A persistent id: how torch refers to a storage."""

    value: Any


@dataclass(frozen=True, eq=False)
class Call:
    """A call that the pickle wanted, of an allowed symbol, with its arguments."""

    symbol: str
    arguments: tuple[Any, ...]


_MARK: Final = object()


@dataclass
class _Machine:
    """The state of one run: pickle's stack and memo."""

    file: str
    stack: list[Any] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)

    def pop(self) -> Any:
        value = self.stack.pop()
        if value is _MARK:
            raise ValueError("a value was expected, found a mark")
        return value

    def pop_to_mark(self) -> list[Any]:
        items: list[Any] = []
        while (value := self.stack.pop()) is not _MARK:
            items.append(value)
        items.reverse()
        return items

    def top(self, kind: type) -> Any:
        value = self.stack[-1]
        if not isinstance(value, kind):
            raise ValueError(f"a {kind.__name__} was expected, found a {type(value).__name__}")
        return value

    def set_items(self, items: list[Any]) -> None:
        target = self.top(dict)
        if len(items) % 2:
            raise ValueError("a key has no value")
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[_as_key(key)] = value

    def import_name(self, name: str) -> None:
        if name not in INERT:
            raise UnsafePickle(self.file, name.replace(" ", ".")[:200])
        self.stack.append(Symbol(name))

    def call(self) -> None:
        arguments, function = self.pop(), self.pop()
        if not isinstance(function, Symbol) or function.name not in CALLABLE or not isinstance(arguments, tuple):
            called = function.name.replace(" ", ".") if isinstance(function, Symbol) else type(function).__name__
            raise UnsafePickle(self.file, f"a call of {called}")
        if function.name == "collections OrderedDict":
            self.stack.append(_ordered_dict(arguments))
        elif function.name == "torch._utils _rebuild_parameter" and arguments:
            self.stack.append(arguments[0])
        else:
            self.stack.append(Call(function.name, arguments))

    def build(self) -> None:
        """Attributes of a dict (state_dict's _metadata) or of something opaque: dropped."""
        self.pop()
        if not isinstance(self.stack[-1], dict | Call):
            raise UnsafePickle(self.file, f"state for a {type(self.stack[-1]).__name__}")


def load(file: str, data: bytes) -> Any:
    """The value that `data` describes, made of dict, list, tuple, numbers, text, bytes, None, Symbol, Call, Persistent.

    Sets and opcodes that only objects need are refused. Raises UnsafePickle with the name that was refused and
    CheckpointMalformed; time and memory are linear in the size of `data`, which is limited to 4 MiB and 500,000 opcodes.
    """
    if len(data) > MAX_PICKLE_BYTES:
        raise CheckpointMalformed(file, f"its pickle has {len(data)} bytes, the limit is {MAX_PICKLE_BYTES}")
    machine = _Machine(file)
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(data)):
            if opcode.name == "STOP":
                return machine.pop()
            if count > _MAX_OPCODES:
                raise ValueError(f"more than {_MAX_OPCODES} opcodes")
            handler = _HANDLERS.get(opcode.name)
            if handler is None:
                raise UnsafePickle(file, f"opcode {opcode.name}" + (f" {argument}"[:200] if argument else ""))
            handler(machine, argument)
    except (ValueError, IndexError, KeyError, OverflowError) as error:
        raise CheckpointMalformed(file, f"its pickle cannot be read: {str(error)[:200]}") from error
    raise CheckpointMalformed(file, "its pickle has no end")


def _as_key(key: Any) -> Hashable:
    # Hashing a deep tuple would recurse in C without limit.
    if not isinstance(key, str | int | float | bytes | Symbol | None):
        raise ValueError(f"a {type(key).__name__} cannot be a key")
    return key


def _ordered_dict(arguments: tuple[Any, ...]) -> dict[Hashable, Any]:
    if not arguments:
        return {}
    pairs = arguments[0]
    if not isinstance(pairs, list) or not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs):
        raise ValueError("OrderedDict wants a list of pairs")
    return {_as_key(key): value for key, value in pairs}


def _push(machine: _Machine, argument: Any) -> None:
    machine.stack.append(argument)


def _constant(make: Callable[[], Any]) -> Callable[[_Machine, Any], None]:
    return lambda machine, _: machine.stack.append(make())


def _tuple(count: int) -> Callable[[_Machine, Any], None]:
    def handler(machine: _Machine, _: Any) -> None:
        items = [machine.pop() for _ in range(count)]
        machine.stack.append(tuple(reversed(items)))

    return handler


def _stack_global(machine: _Machine, _: Any) -> None:
    name, module = machine.pop(), machine.pop()
    machine.import_name(
        f"{module} {name}" if isinstance(name, str) and isinstance(module, str) else "a nameless global"
    )


def _put(machine: _Machine, index: int) -> None:
    machine.memo[index] = machine.stack[-1]


def _memoize(machine: _Machine, _: Any) -> None:
    machine.memo[len(machine.memo)] = machine.stack[-1]


def _get(machine: _Machine, index: int) -> None:
    machine.stack.append(machine.memo[index])


def _set_item(machine: _Machine, _: Any) -> None:
    value, key = machine.pop(), machine.pop()
    machine.set_items([key, value])


def _append(machine: _Machine, _: Any) -> None:
    value = machine.pop()
    machine.top(list).append(value)


_LITERALS = [
    "INT",
    "BININT",
    "BININT1",
    "BININT2",
    "LONG",
    "LONG1",
    "LONG4",
    "FLOAT",
    "BINFLOAT",
    "STRING",
    "BINSTRING",
    "SHORT_BINSTRING",
    "UNICODE",
    "BINUNICODE",
    "SHORT_BINUNICODE",
    "BINUNICODE8",
    "BINBYTES",
    "SHORT_BINBYTES",
    "BINBYTES8",
]
_HANDLERS: Final[Mapping[str, Callable[[_Machine, Any], None]]] = {
    **dict.fromkeys(_LITERALS, _push),
    **dict.fromkeys(("PROTO", "FRAME"), lambda machine, _: None),
    "NONE": _constant(lambda: None),
    "NEWTRUE": _constant(lambda: True),
    "NEWFALSE": _constant(lambda: False),
    "EMPTY_DICT": _constant(dict),
    "EMPTY_LIST": _constant(list),
    "EMPTY_TUPLE": _constant(tuple),
    "MARK": _constant(lambda: _MARK),
    "TUPLE1": _tuple(1),
    "TUPLE2": _tuple(2),
    "TUPLE3": _tuple(3),
    "TUPLE": lambda machine, _: machine.stack.append(tuple(machine.pop_to_mark())),
    "LIST": lambda machine, _: machine.stack.append(machine.pop_to_mark()),
    "DICT": lambda machine, _: _dict(machine),
    "SETITEM": _set_item,
    "SETITEMS": lambda machine, _: machine.set_items(machine.pop_to_mark()),
    "APPEND": _append,
    "APPENDS": lambda machine, _: _extend(machine),
    "PUT": _put,
    "BINPUT": _put,
    "LONG_BINPUT": _put,
    "MEMOIZE": _memoize,
    "GET": _get,
    "BINGET": _get,
    "LONG_BINGET": _get,
    "GLOBAL": lambda machine, name: machine.import_name(name),
    "STACK_GLOBAL": _stack_global,
    "BINPERSID": lambda machine, _: machine.stack.append(Persistent(machine.pop())),
    "REDUCE": lambda machine, _: machine.call(),
    "BUILD": lambda machine, _: machine.build(),
}


def _dict(machine: _Machine) -> None:
    items = machine.pop_to_mark()
    machine.stack.append({})
    machine.set_items(items)


def _extend(machine: _Machine) -> None:
    items = machine.pop_to_mark()
    machine.top(list).extend(items)
