"""Casts equal torch's, bit by bit, in any chunking; nothing becomes infinite in silence."""

import itertools

import pytest
from converter import casting
from converter.errors import PrecisionOverflow

torch = pytest.importorskip("torch")

DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def as_bytes(tensor: "torch.Tensor") -> bytes:
    return bytes(tensor.contiguous().view(torch.uint8).numpy().tobytes())


def numbers() -> "torch.Tensor":
    """Ordinary values, ties of rounding, subnormals, zeros and infinities of both signs."""
    torch.manual_seed(0)
    special = [0.0, -0.0, 1.00390625, 1.01171875, 1e-8, -6e-8, 65504.0, 1.5, float("inf"), float("-inf"), 2049.0]
    return torch.cat([torch.randn(1000) * 10, torch.randn(1000) * 1e-6, torch.tensor(special)])


@pytest.mark.parametrize(("source", "target"), [pair for pair in itertools.permutations(DTYPES, 2) if pair[1] != "F64"])
def test_equals_torch(source: str, target: str) -> None:
    values = numbers().to(DTYPES[source])
    if source != "F16" and target == "F16":
        values = values.clamp(-65000, 65000)
    data = as_bytes(values)
    chunks = [data[at : at + 777] for at in range(0, len(data), 777)]  # chunks that cut values in two
    assert b"".join(casting.cast(chunks, source, target, "w")) == as_bytes(values.to(DTYPES[target]))


def test_nan_stays_nan() -> None:
    data = as_bytes(torch.tensor([float("nan")]))
    (result,) = casting.cast([data], "F32", "BF16", "w")
    assert torch.frombuffer(bytearray(result), dtype=torch.bfloat16).isnan().all()


@pytest.mark.parametrize(
    ("source", "target", "value"),
    [("F32", "F16", 70000.0), ("BF16", "F16", 1e5), ("F64", "F32", 1e300), ("F32", "BF16", 3.4e38)],
)
def test_overflow_is_an_error_that_names_the_tensor(source: str, target: str, value: float) -> None:
    data = as_bytes(torch.tensor([1.0, value, -value], dtype=DTYPES[source]))
    with pytest.raises(PrecisionOverflow, match=r"2 values of 'unet\.w' are too large") as caught:
        list(casting.cast([data], source, target, "unet.w"))
    assert caught.value.num_values == 2
