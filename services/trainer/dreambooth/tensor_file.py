"""Tensors into a safetensors file straight from their memory, and nested states with tensors in them.

The library's own writer copies every tensor twice, torch.save has work with each of two thousand: together they took twice
the time for a resume point, while training waited. Reading is the library's.

Format: u64 little-endian length, so many bytes of JSON, the values without holes.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import load_file

_NAMES: Final = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_NAMED: Final = "tensor of the file"  # the one key of what stands in the place of a tensor
_ALIGNMENT: Final = 8
_BUFFER_BYTES: Final = 2**16  # one write for many small tensors


def write(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    """The largest numbers first, so that each lies aligned. Raises OSError, and KeyError for a type of numbers not in _NAMES."""
    ordered = sorted(tensors, key=lambda name: (-tensors[name].itemsize, name))
    header: dict[str, Any] = {}
    end = 0
    for name in ordered:
        tensor = tensors[name]
        begin, end = end, end + tensor.nbytes
        header[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    with path.open("wb", buffering=_BUFFER_BYTES) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in ordered:
            file.write(_memory(tensors[name]))


def _memory(tensor: torch.Tensor) -> memoryview:
    here = tensor.detach().cpu().contiguous()
    return (here.view(torch.int16) if here.dtype is torch.bfloat16 else here).numpy().data  # numpy has no bfloat16


def take_out(state: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """The state with the name of each tensor in its place; the tensors are added under these names, each once."""
    names = {id(tensor): name for name, tensor in tensors.items()}

    def taken(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            name = names.setdefault(id(value), f"{len(names):06}")
            tensors[name] = value
            return {_NAMED: name}
        if isinstance(value, Mapping):
            return {key: taken(content) for key, content in value.items()}
        return type(value)(map(taken, value)) if isinstance(value, list | tuple) else value

    return taken(state)


def put_back(state: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    """What `take_out` was given."""
    if isinstance(state, Mapping):
        if _NAMED in state:
            return tensors[state[_NAMED]]
        return {key: put_back(content, tensors) for key, content in state.items()}
    return type(state)(put_back(value, tensors) for value in state) if isinstance(state, list | tuple) else state


def read(path: Path, device: torch.device) -> dict[str, torch.Tensor]:
    """All tensors of a file, in memory of their own: the library maps the file."""
    return {name: tensor.clone() for name, tensor in load_file(path, str(device)).items()}
