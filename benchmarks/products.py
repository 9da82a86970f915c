"""Measure the lower bound: the matrix products of a model alone, on the same device."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch

from swinv2_mm.core import SwinTransformerV2
from swinv2_mm.core.torch_private import TorchDispatchMode, onednn_linear, operator_name

from .cases import Case

# The products of all windows are made in pieces of at most this.
_MAX_OPERAND_BYTES = 2**28


class Product(NamedTuple):
    """A product (m, k) by (k, n); ``is_batched`` for those of windows, made many at once."""

    m: int
    k: int
    n: int
    is_batched: bool


class _Products(TorchDispatchMode):
    """Record matrix products as they run."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[Product] = Counter()

    def __torch_dispatch__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        if operator_name(func).removeprefix('aten::') in ('mm', 'bmm', 'addmm', 'baddbmm'):
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
    """Run matrix products in turn, each in the fastest way that torch has for it.

    Args:
        counts: What ``matrix_products`` returned.
        device: Where.
        dtype: Data type of operands and results.

    Attributes:
        flops: FLOPs of one call; a multiply-accumulate is two.
    """

    def __init__(
        self, counts: Mapping[Product, int], *, device: torch.device, dtype: torch.dtype
    ) -> None:
        self.flops = sum(2 * p.m * p.k * p.n * count for p, count in counts.items())
        self._calls: list[tuple[Callable[[], None], int]] = []
        for product, count in counts.items():
            batch = 1
            if product.is_batched:
                m, k, n, _ = product
                largest = max(m * k, k * n, m * n) * dtype.itemsize
                batch = min(count, max(1, _MAX_OPERAND_BYTES // largest))
            for size, calls in ((batch, count // batch), (count % batch, 1)):
                if size:
                    ways = _ways(product, batch=size, device=device, dtype=dtype)
                    self._calls.append((min(ways, key=_seconds) if ways[1:] else ways[0], calls))

    def __call__(self) -> None:
        """Multiply."""
        with torch.no_grad():
            for multiply, calls in self._calls:
                for _ in range(calls):
                    multiply()


def _ways(
    product: Product, *, batch: int, device: torch.device, dtype: torch.dtype
) -> list[Callable[[], None]]:
    """List the ways to make a product; in float32 on a CPU, torch carries two libraries."""
    m, k, n, is_batched = product
    a, b, out = (
        torch.ones(batch, *sides, device=device, dtype=dtype) for sides in ((m, k), (k, n), (m, n))
    )
    if is_batched:
        ways = [lambda: torch.bmm(a, b, out=out)]
    else:
        ways = [lambda: torch.mm(a[0], b[0], out=out[0])]
    # F.linear takes MKL, which keeps to AVX2 on processors of other makers (swinv2_mm.core.linear).
    if device.type == 'cpu' and dtype is torch.float32 and onednn_linear is not None:
        transposed = b.transpose(1, 2).contiguous()

        def by_onednn() -> None:
            for x, weight in zip(a, transposed, strict=True):
                onednn_linear(x, weight, None, 'none', [], '')

        ways.append(by_onednn)
    return ways


def _seconds(multiply: Callable[[], None]) -> float:
    """Time one call, after another one."""
    multiply()
    start = time.perf_counter()
    multiply()
    return time.perf_counter() - start
