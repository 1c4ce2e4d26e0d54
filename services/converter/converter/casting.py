"""Changes of precision, chunk by chunk. The only place that needs numpy; copies of bytes never come here.

Rounding is to the nearest value, ties to even, as torch does, so that results equal torch's casts bit by bit.
"""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

from converter.errors import PrecisionOverflow
from converter.tensors import DTYPE_BYTES, PRECISION_OF_DTYPE

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# A cast needs some 20 bytes of temporary memory for each value.
_PIECE_BYTES: Final = 128 * 1024


def cast(chunks: Iterable[bytes | memoryview], source: str, target: str, name: str) -> Iterator[bytes]:
    """The same values as dtype `target` instead of `source` ("F64", "F32", "F16", "BF16"), in chunks.

    Raises PrecisionOverflow for finite values of tensor `name` that `target` cannot hold.
    """
    size_bytes = DTYPE_BYTES[source]
    rest = b""
    for chunk in chunks:
        data = rest + bytes(chunk) if rest else chunk
        whole = len(data) - len(data) % size_bytes
        rest = bytes(data[whole:])
        for start in range(0, whole, _PIECE_BYTES):
            yield _cast(data[start : min(start + _PIECE_BYTES, whole)], source, target, name)


def _cast(data: bytes | memoryview, source: str, target: str, name: str) -> bytes:
    import numpy as np  # 10 MB and 0.1 s that conversions without a change of precision do not pay

    values = _decode(data, source)
    with np.errstate(over="ignore", invalid="ignore"):
        result = _round_to_bf16(values) if target == "BF16" else values.astype({"F16": "<f2", "F32": "<f4"}[target])
    infinite = (result & 0x7FFF) == 0x7F80 if target == "BF16" else np.isinf(result)
    num_overflows = int(np.count_nonzero(infinite & np.isfinite(values)))
    if num_overflows:
        raise PrecisionOverflow(name, num_overflows, PRECISION_OF_DTYPE.get(source, source), PRECISION_OF_DTYPE[target])
    return bytes(result.tobytes())


def _decode(data: bytes | memoryview, dtype: str) -> "NDArray[np.floating[Any]]":
    """As an array that holds every value exactly."""
    import numpy as np

    if dtype == "BF16":
        # bfloat16 is the upper half of a float32.
        return (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4")
    return np.frombuffer(data, {"F64": "<f8", "F32": "<f4", "F16": "<f2"}[dtype])


def _round_to_bf16(values: "NDArray[np.floating[Any]]") -> "NDArray[np.uint16]":
    import numpy as np

    bits = values.astype("<f4").view("<u4")
    # The sum wraps around for some NaNs alone, which are replaced.
    rounded = ((bits + np.uint32(0x7FFF) + ((bits >> 16) & 1)) >> 16).astype("<u2")
    return np.where(np.isnan(values), np.uint16(0x7FC0), rounded)
