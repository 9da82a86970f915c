"""The physical limit: the matrix products of a model, and nothing else, on the same device."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from swinv2_mm.core import SwinTransformerV2

from .cases import Case

# The products of all windows are made in pieces of at most this.
_MAX_OPERAND_BYTES = 2**28


class Product(NamedTuple):
    """A product (m, k) by (k, n); ``is_batched`` for those of windows, of which many run at once."""

    m: int
    k: int
    n: int
    is_batched: bool


class _Products(TorchDispatchMode):
    """Counts matrix products as they run."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[Product] = Counter()

    def __torch_dispatch__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        if func._schema.name.removeprefix('aten::') in ('mm', 'bmm', 'addmm', 'baddbmm'):
            a, b = args[-2:]
            product = Product(a.shape[-2], a.shape[-1], b.shape[-1], a.ndim == 3)
            self.counts[product] += a.shape[0] if a.ndim == 3 else 1
        return func(*args, **(kwargs or {}))


def matrix_products(case: Case, *, training: bool) -> Counter[Product]:
    """Count the matrix products of a backbone without running it.

    All of linear layers and attention, forward and, in training, backward. Without the stem's
    convolution (less than 1 %); the bias network in training only, as its result is kept.
    """
    with torch.device('meta'):
        model = SwinTransformerV2(
            case.arch,
            window_size=case.clipped_windows,
            drop_path_rate=0.0,
            out_indices=(len(case.arch.depths) - 1,),
            attention='eager',
        ).train(training)
        images = torch.empty(case.batch, 3, *case.size_px)
    with torch.set_grad_enabled(training):
        if not training:
            model(images)
        with _Products() as products:
            out = model(images)[0]
            if training:
                out.backward(out)
    return products.counts


class ProductsAlone:
    """Runs matrix products one after another, into memory that is there already.

    Args:
        counts: From ``matrix_products``.
        device: Where.
        dtype: Of operands and results.

    Attributes:
        flops: Of one call; a multiply-accumulate is two.
    """

    def __init__(
        self, counts: Mapping[Product, int], *, device: torch.device, dtype: torch.dtype
    ) -> None:
        self.flops = sum(2 * p.m * p.k * p.n * count for p, count in counts.items())
        self._calls = []
        for (m, k, n, is_batched), count in counts.items():
            batch = 1
            if is_batched:
                largest = max(m * k, k * n, m * n) * dtype.itemsize
                batch = min(count, max(1, _MAX_OPERAND_BYTES // largest))
            for size, calls in ((batch, count // batch), (count % batch, 1)):
                shapes = ((size, m, k), (size, k, n), (size, m, n))
                operands = [torch.ones(s, device=device, dtype=dtype) for s in shapes]
                if not is_batched:
                    operands = [x.flatten(0, 1) for x in operands]
                if size:
                    self._calls.append((torch.bmm if is_batched else torch.mm, operands, calls))

    def __call__(self) -> None:
        """Multiply."""
        for multiply, (a, b, out), calls in self._calls:
            for _ in range(calls):
                multiply(a, b, out=out)
