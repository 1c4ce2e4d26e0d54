"""What operations make of meta tensors, remembered: most find their shapes in Python, several times slower than a tensor of a
known shape is made. `meta` counts with it.
"""

from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any

import torch

_Layout = tuple[torch.Size, tuple[int, ...], torch.dtype]


class KnownShapes:
    """The layouts of what operations made, by their arguments. It grows with the number of different calls."""

    def __init__(self) -> None:
        self._found: dict[object, list[_Layout]] = {}

    def made_by(self, operation: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """The same as `operation(*args, **kwargs)` for an operation of aten."""
        key = (operation, _described(args), _described(tuple(kwargs.items()))) if _makes_new(operation) else None
        if key is None or None in key:
            return operation(*args, **kwargs)
        if key not in self._found:
            made = operation(*args, **kwargs)
            self._remember(key, made, (*args, *kwargs.values()))
            return made
        made = [
            torch.empty_strided(size, strides, dtype=dtype, device="meta") for size, strides, dtype in self._found[key]
        ]
        return tuple(made) if len(operation._schema.returns) > 1 else made[0]

    def _remember(self, key: object, made: Any, given: tuple[Any, ...]) -> None:
        tensors = made if isinstance(made, tuple) else (made,)
        if all(isinstance(tensor, torch.Tensor) and tensor.is_meta for tensor in tensors):
            memory = [_memory(tensor) for tensor in tensors]
            # Some views are not declared as such, `_unsafe_view` for one.
            if len({*memory}) == len(memory) and not {*memory} & {*_memories(given)}:
                self._found[key] = [(tensor.size(), tensor.stride(), tensor.dtype) for tensor in tensors]


@cache
def _makes_new(operation: Any) -> bool:
    """Whether it says that it neither changes an argument nor returns a view of one."""
    return not any(argument.alias_info for argument in operation._schema.arguments)


def _memory(tensor: torch.Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _memories(values: Iterable[Any]) -> Iterator[int]:
    for value in values:
        if isinstance(value, torch.Tensor):
            yield _memory(value)
        elif isinstance(value, (tuple, list)):
            yield from _memories(value)


def _described(value: Any) -> object:
    """Everything that shapes can depend on; None if that is not known, as of a tensor with content."""
    if isinstance(value, torch.Tensor):
        return (value.size(), value.stride(), value.dtype) if value.is_meta else None
    if isinstance(value, (tuple, list)):
        parts = tuple(map(_described, value))
        return None if None in parts else parts
    return type(value), value  # 1, 1.0 and True are equal, and not the same to an operation
