"""Attention between prologue and epilogue of ``hybrid``: torch's memory-efficient kernel on CUDA.

That kernel is called by name: others of torch have given NaN in the backward pass with a mask.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ...position_bias import computing_dtype
from ...torch_private import efficient_attention, efficient_attention_backward

# The log-sum-exp of each query, as torch's kernel pads it; not so on AMD.
_LOG_SUM_ALIGNMENT = 1 if torch.version.hip else 32


def log_sums(num_tokens: int) -> int:
    """Return how many log-sum-exp are kept for the queries of a window."""
    return (num_tokens + _LOG_SUM_ALIGNMENT - 1) // _LOG_SUM_ALIGNMENT * _LOG_SUM_ALIGNMENT


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, *, keep: bool) -> tuple[Tensor, Tensor]:
    """Return the attention of windows, and the log-sum-exp of each query.

    Args:
        bias: Bias of all windows or of each, query by key.
        keep: Whether the log-sum-exp is wanted; it is empty otherwise.

    Shapes:
        (n, N, heads, d) each, (heads, N, N) or (n, heads, N, N)
        -> (n, N, heads, d), (n, heads, log_sums(N))
    """
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    if q.device.type == 'cuda':
        mask = bias.expand(len(q), -1, -1, -1)
        out, log_sum, *_ = efficient_attention(q, k, v, mask, keep, scale=1.0)
    else:
        logits = _logits(q, k, bias)
        log_sum = torch.logsumexp(logits, dim=-1)
        weights = torch.exp(logits - log_sum[..., None])
        out = _product(weights.to(v.dtype), v).to(q.dtype)
        log_sum = F.pad(log_sum, (0, log_sums(q.shape[2]) - q.shape[2])) if keep else log_sum[:0]
    return out.transpose(1, 2).contiguous(), log_sum


def attend_backward(
    d_out: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor,
    out: Tensor,
    log_sum: Tensor,
    *,
    needs_bias: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Return the gradients of ``attend``: of its operands, and of the bias of each window.

    Shapes:
        -> three of (n, N, heads, d), (n, heads, N, N)
    """
    d_out, q, k, v, out = (x.transpose(1, 2) for x in (d_out, q, k, v, out))
    d_bias: Tensor | None
    if q.device.type == 'cuda':
        # The state of a generator of random numbers, for dropout.
        unused = torch.empty((), dtype=torch.int64, device=q.device)
        *grads, d_bias = efficient_attention_backward(
            d_out, q, k, v, bias.expand(len(q), -1, -1, -1), out, log_sum, unused, unused, 0.0,
            [True, True, True, needs_bias], scale=1.0,
        )  # fmt: skip
    else:
        weights = torch.exp(_logits(q, k, bias) - log_sum[..., : q.shape[2], None])
        delta = (d_out.to(weights.dtype) * out.to(weights.dtype)).sum(-1, keepdim=True)
        d_logits = weights * (_product(d_out, v.mT) - delta)
        d_bias, weights = d_logits.to(q.dtype), weights.to(q.dtype)
        products = ((d_bias, k), (d_bias.mT, q), (weights.mT, d_out))
        grads = [_product(*pair).to(q.dtype) for pair in products]
    d_q, d_k, d_v = (x.transpose(1, 2).contiguous() for x in grads)
    return d_q, d_k, d_v, d_bias if needs_bias else None


def _product(a: Tensor, b: Tensor) -> Tensor:
    """Multiply half precision as a GPU does: rounded factors, sums in float32."""
    return a.to(computing_dtype(a)) @ b.to(computing_dtype(b))


def _logits(q: Tensor, k: Tensor, bias: Tensor) -> Tensor:
    return _product(q, k.mT) + bias
