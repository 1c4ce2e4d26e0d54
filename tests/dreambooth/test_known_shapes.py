"""Remembered shapes are those that the operations themselves find."""

from typing import Any

import pytest
import torch
from dreambooth.known_shapes import KnownShapes

aten = torch.ops.aten


def meta(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.empty(*shape, dtype=dtype, device="meta")


def layout(tensor: torch.Tensor) -> tuple[Any, ...]:
    return tensor.size(), tensor.stride(), tensor.dtype, tensor.device, tensor.untyped_storage().nbytes()


CALLS = {
    "of another width": (aten.add.Tensor, (meta(4, 1, dtype=torch.bfloat16), meta(3)), {}),
    "laid out in another order": (aten.add.Tensor, (meta(2, 3).t(), 1), {}),
    "with a keyword": (aten._to_copy.default, (meta(2, 3),), {"dtype": torch.float16}),
    "of a list": (aten.cat.default, ([meta(2, 3), meta(5, 3)],), {}),
    "several": (aten.native_group_norm.default, (meta(2, 4, 9), meta(4), meta(4), 2, 4, 9, 2, 1e-5), {}),
}


@pytest.mark.parametrize("name", CALLS)
def test_the_second_answer_is_laid_out_as_the_first(name: str) -> None:
    operation, args, kwargs = CALLS[name]
    known = KnownShapes()
    wanted, first, second = operation(*args, **kwargs), *(known.made_by(operation, args, kwargs) for _ in range(2))
    assert type(wanted) is type(first) is type(second)
    made = [each if isinstance(each, tuple) else (each,) for each in (wanted, first, second)]
    for tensors in zip(*made, strict=True):
        assert layout(tensors[0]) == layout(tensors[1]) == layout(tensors[2])
        assert len({tensor.untyped_storage()._cdata for tensor in tensors}) == 3


def test_an_operation_is_asked_once_for_equal_shapes() -> None:
    asked = []

    class Asked:
        _schema = aten.mul.Tensor._schema

        def __call__(self, *args: Any) -> Any:
            asked.append(args)
            return aten.mul.Tensor(*args)

    known, operation = KnownShapes(), Asked()
    for rows in (2, 2, 3, 2):
        known.made_by(operation, (meta(rows, 3), 2.0), {})
    assert [args[0].shape[0] for args in asked] == [2, 3]


def test_equal_numbers_of_different_kinds_are_told_apart() -> None:
    known = KnownShapes()
    counts = meta(3, dtype=torch.int64)
    made = [known.made_by(aten.mul.Tensor, (counts, factor), {}).dtype for factor in (1, 1.0, 1)]
    assert made == [torch.int64, torch.float32, torch.int64]


def test_views_and_changed_arguments_stay_what_they_are() -> None:
    known, given = KnownShapes(), meta(2, 3)
    for _ in range(2):
        for view, args in (
            (aten.t.default, ()),
            (aten._unsafe_view.default, ([6],)),
        ):  # the latter is not declared as one
            seen = known.made_by(view, (given, *args), {})
            assert seen.untyped_storage()._cdata == given.untyped_storage()._cdata
        assert known.made_by(aten.add_.Tensor, (given, 1), {}) is given


def test_what_has_content_is_computed() -> None:
    known = KnownShapes()
    assert [known.made_by(aten.add.Tensor, (torch.tensor(value), 1), {}).item() for value in (1, 2)] == [2, 3]
