"""Tensors as names, dtypes, shapes and places in stored files; their values stay where they are.

dtypes are the names of the safetensors format ("F16", "BF16", "F32", ...), whatever file they come from.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from converter.stored import StoredFile

DTYPE_BYTES: Final[Mapping[str, int]] = {
    "F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2,
    "I8": 1, "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1,
}  # fmt: skip
FLOATS: Final = frozenset({"F64", "F32", "F16", "BF16"})
PRECISION_OF_DTYPE: Final[Mapping[str, str]] = {"F32": "fp32", "F16": "fp16", "BF16": "bf16"}
DTYPE_OF_PRECISION: Final[Mapping[str, str]] = {precision: dtype for dtype, precision in PRECISION_OF_DTYPE.items()}


@dataclass(frozen=True)
class StoredTensor:
    """One tensor inside a stored file, row-major and contiguous.

    offset: bytes from the start of the file, or, where member_offset is not None, from the start of the data of the
    zip member whose local header begins there.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: StoredFile
    offset: int
    member_offset: int | None = None

    @property
    def num_bytes(self) -> int:
        """Size of the values."""
        return math.prod(self.shape) * DTYPE_BYTES[self.dtype]

    @property
    def order(self) -> tuple[int, int]:
        """Sorts the tensors of one file by place."""
        return (self.offset, 0) if self.member_offset is None else (self.member_offset, self.offset)


def main_precision(dtypes_and_bytes: Iterable[tuple[str, int]]) -> str:
    """The precision that more floating-point bytes have than any other; "" if two have equally many, or there are none."""
    totals: dict[str, int] = {}
    for dtype, num_bytes in dtypes_and_bytes:
        if dtype in PRECISION_OF_DTYPE:
            # Compared by values, not bytes: half of the values in fp16 are half of the model.
            totals[dtype] = totals.get(dtype, 0) + num_bytes // DTYPE_BYTES[dtype]
    ranked = sorted(totals.items(), key=lambda item: -item[1])
    if not ranked or (len(ranked) > 1 and ranked[0][1] == ranked[1][1]):
        return ""
    return PRECISION_OF_DTYPE[ranked[0][0]]
