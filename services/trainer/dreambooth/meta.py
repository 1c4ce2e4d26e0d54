"""Two ways to look at torch's meta device, where tensors have shapes and no content: as a counter of what lives and of
arithmetic, and as a stand-in for a real device. `dry_run` uses both.
"""

import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils import flop_counter
from torch.utils._python_dispatch import TorchDispatchMode

from dreambooth.known_shapes import KnownShapes
from dreambooth.micro_step import FORMATS

# What torch's autocast computes in the lower format, and on CUDA in fp32, among what these models call
# (https://docs.pytorch.org/docs/stable/amp.html, "Op-Specific Behavior").
_IN_LOWER: Final = (
    functional.linear,
    functional.conv2d,
    functional.scaled_dot_product_attention,
    torch.matmul,
    torch.bmm,
)
_IN_FP32_ON_CUDA: Final = (functional.layer_norm, functional.group_norm, functional.softmax, functional.mse_loss)
# One fused kernel, which keeps no table of weights: as the kernels of CUDA do. Meta tensors would get the formula spelt out.
_attention: Final = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_attention_backward: Final = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


class Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of tensors while they live, and the arithmetic of every operation. given: not to be counted, nor
    are views of them."""

    def __init__(self, given: Iterable[torch.Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._given = {tensor.untyped_storage()._cdata for tensor in given}
        self.peak_bytes = 0
        self.flops = 0
        self._live_bytes = 0
        self._alive: dict[int, Any] = {}

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        made = _known_shapes.made_by(operation, args, kwargs)
        formula = _FORMULAS.get(operation._overloadpacket)
        if formula is not None:
            self.flops += formula(*args, **kwargs, out_val=made)
        for tensor in made if isinstance(made, (tuple, list)) else (made,):
            if isinstance(tensor, torch.Tensor):
                self._follow(tensor.untyped_storage())
        return made

    def _follow(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._alive or key in self._given:
            return

        def gone(_: object) -> None:
            del self._alive[key]
            self._live_bytes -= size

        self._alive[key] = weakref.ref(storage, gone)
        self._live_bytes += size
        self.peak_bytes = max(self.peak_bytes, self._live_bytes)


class AsOnDevice(TorchFunctionMode):
    """Lets meta tensors be treated as those of a real device: fused attention, and autocast, which meta has not."""

    def __init__(self, precision: str, kind: str) -> None:
        super().__init__()
        self._lower = FORMATS.get(precision)
        self._in_fp32 = _IN_FP32_ON_CUDA if kind == "cuda" else ()
        self._cast: dict[int, torch.Tensor] = {}

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        wanted = None
        if self._lower and function in _IN_LOWER:
            wanted = self._lower
        elif self._lower and function in self._in_fp32:
            wanted = torch.float32
        if wanted:
            args = [self._as(value, wanted) for value in args]
            kwargs = {name: self._as(value, wanted) for name, value in kwargs.items()}
        if function is functional.scaled_dot_product_attention:
            return _attend(*args, **kwargs)
        return function(*args, **kwargs)

    def __exit__(self, *error: Any) -> None:
        self._cast.clear()
        super().__exit__(*error)  # type: ignore[no-untyped-call]

    def _as(self, value: Any, wanted: torch.dtype) -> Any:
        if not isinstance(value, torch.Tensor) or not value.is_floating_point() or value.dtype == wanted:
            return value
        if not (value.is_leaf and value.requires_grad):
            return value.to(wanted)
        # Autocast keeps the cast of a weight that trains until the end of the forward pass.
        if id(value) not in self._cast:
            self._cast[id(value)] = value.to(wanted)
        return self._cast[id(value)]


def _attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    **_: Any,
) -> torch.Tensor:
    found: torch.Tensor = _attention(query, key, value, 0.0, is_causal, attn_mask=attn_mask, scale=scale)[0]
    return found


def _attention_flops(query: Any, key: Any, value: Any, *_: Any, out_val: Any = None, **__: Any) -> int:
    return int(flop_counter.sdpa_flop_count(query.shape, key.shape, value.shape))  # type: ignore[no-untyped-call]


def _attention_backward_flops(grad: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    # Twice the forward pass, as for every other product: that the kernel computes the table of weights again is its affair.
    return 2 * _attention_flops(query, key, value)


_known_shapes: Final = KnownShapes()  # of this process: networks repeat few operations on equal shapes

_FORMULAS: Final[Mapping[Any, Callable[..., int]]] = {
    **flop_counter.flop_registry,
    _attention: _attention_flops,
    _attention_backward: _attention_backward_flops,
}
