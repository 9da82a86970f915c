"""Scaled cosine attention in windows (paper equation 2): the parameters and their bias table."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from ..linear import Linear, linear
from ..position_bias import PositionBias, central_table, cpb_table, relative_coords, resized_table
from ..torch_private import version_of
from ..window_partition import Size, WindowGrid
from .backends import Backend
from .eager import dot_product
from .weights import token_weights

Similarity = Literal['cosine', 'dot']
_CPB_HIDDEN_DIM = 512
# Names of their own, so that weights of one are never taken for those of the other.
_BIAS_NETWORKS = {'log_cpb': 'cpb_mlp', 'linear_cpb': 'linear_cpb_mlp'}
# Tensors cached in eval, per block: the bias of the linear layer, and a table per shape that a
# clipped window takes.
_MAX_KEPT = 8


class _Kept(NamedTuple):
    """A cached tensor with the parameter versions that it was computed from."""

    parameters: Sequence[Tensor]
    state: list[tuple[Any, ...]]
    tensor: Tensor


class WindowAttention(nn.Module):
    """Multi-head cosine attention in windows, with a relative position bias.

    Args:
        dim: Channels C.
        num_heads: Attention heads; they divide ``dim``.
        position_bias: ``log_cpb``, ``linear_cpb`` or ``table`` (paper table 1).
        pretrained_window_size: Window that the bias is, or was, trained at.
        backend: See ``resolve_backend``; ``dot`` has one of its own.
        similarity: Of queries and keys: ``cosine`` times a learnt scale (equation 2), or ``dot``,
            their product divided by the root of a head's channels (Swin V1; paper table 6).
    """

    # None where the similarity is the dot product, whose backend asks for none.
    logit_scale: Tensor

    def __init__(
        self,
        dim: int,
        *,
        num_heads: int,
        position_bias: PositionBias,
        pretrained_window_size: Size,
        backend: Backend,
        similarity: Similarity = 'cosine',
    ) -> None:
        super().__init__()
        self.position_bias = position_bias
        self.pretrained_window_size = pretrained_window_size
        self.backend = dot_product if similarity == 'dot' else backend
        self.similarity = similarity
        self._tables: dict[tuple[Any, ...], _Kept] = {}

        if similarity == 'dot':
            self.register_parameter('logit_scale', None)
        else:
            self.logit_scale = nn.Parameter(torch.empty(num_heads, 1, 1))
        self.qkv = Linear(dim, 3 * dim, bias=False)
        self.q_bias = nn.Parameter(torch.empty(dim))
        self.v_bias = nn.Parameter(torch.empty(dim))
        if position_bias == 'table':
            shape = self._table_shape(pretrained_window_size, num_heads)
            self.relative_position_bias_table = nn.Parameter(torch.empty(shape))
        else:
            mlp = nn.Sequential(
                nn.Linear(len(pretrained_window_size), _CPB_HIDDEN_DIM),
                nn.ReLU(inplace=True),
                nn.Linear(_CPB_HIDDEN_DIM, num_heads, bias=False),
            )
            self.add_module(_BIAS_NETWORKS[position_bias], mlp)
        self.proj = Linear(dim, dim)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw what is neither Linear nor LayerNorm as the official code does."""
        if self.similarity == 'cosine':
            nn.init.constant_(self.logit_scale, math.log(10.0))
        nn.init.zeros_(self.q_bias)
        nn.init.zeros_(self.v_bias)
        if self.position_bias == 'table':
            nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)

    @property
    def bias_network(self) -> nn.Sequential:
        """The network that maps coordinates to the position bias; ``table`` has none."""
        network = self.get_submodule(_BIAS_NETWORKS[self.position_bias])
        assert isinstance(network, nn.Sequential)
        return network

    @staticmethod
    def _table_shape(window: Size, num_heads: int) -> tuple[int, int]:
        return (2 * window[0] - 1) * (2 * window[1] - 1), num_heads

    def set_pretrained_window_size(self, window: Size) -> None:
        """Set the window that the weights about to be loaded were trained at.

        A learnt table takes the shape that goes with it; its values are then undefined.
        """
        if window == self.pretrained_window_size:
            return
        self.pretrained_window_size = window
        self._tables.clear()
        if self.position_bias == 'table':
            table = self.relative_position_bias_table
            # In place: an optimiser that holds the parameter keeps it.
            table.data = table.data.new_zeros(self._table_shape(window, table.shape[1]))

    def __getstate__(self) -> dict[str, Any]:
        """Leave cached bias tables out of copies and pickles: they follow from the parameters."""
        return {**self.__dict__, '_tables': {}}

    def train(self, mode: bool = True) -> WindowAttention:
        """Set the mode and drop the cached bias tables, in case weights were exchanged."""
        self._tables.clear()
        return super().train(mode)

    def bias_table(self, grid: WindowGrid) -> Tensor:
        """Return the bias of every offset in the grid's window.

        In eval, without gradients, it is computed once and cached until a parameter changes.

        Shapes:
            -> (heads, (2Mh - 1) * (2Mw - 1)), at least float32
        """
        if self.position_bias == 'table':
            parameters = [self.relative_position_bias_table]
        else:
            parameters = list(self.bias_network.parameters())
        return self._kept(
            (grid.window, grid.nominal_window),
            parameters,
            lambda: self._compute_bias_table(grid.window, nominal_window=grid.nominal_window),
        )

    def _kept(
        self, name: tuple[Any, ...], parameters: Sequence[Tensor], compute: Callable[[], Tensor]
    ) -> Tensor:
        """Return what follows from parameters alone: cached in eval, without gradients."""
        if self.training or torch.compiler.is_compiling():
            return compute()
        needs_graph = torch.is_grad_enabled() and any(p.requires_grad for p in parameters)
        # Tensors made in inference mode have no version that would tell of a change.
        if needs_graph or any(p.is_inference() for p in parameters):
            return compute()
        # The cached parameters themselves are compared: an address alone can be used again.
        key = (*name, torch.is_inference_mode_enabled())
        state = [(p.data_ptr(), version_of(p), p.dtype, p.device) for p in parameters]
        kept = self._tables.get(key)
        if kept is not None and kept.state == state:
            if all(old is new for old, new in zip(kept.parameters, parameters, strict=True)):
                return kept.tensor
        if key not in self._tables and len(self._tables) >= _MAX_KEPT:
            self._tables.clear()
        tensor = compute().detach()
        self._tables[key] = _Kept(parameters, state, tensor)
        return tensor

    def _qkv_bias(self) -> Tensor:
        return torch.cat((self.q_bias, torch.zeros_like(self.v_bias), self.v_bias))

    def bake(self, window: Size) -> None:
        """Replace the bias network, or a table of another size, by the bias at one window."""
        with torch.no_grad():
            table = self._compute_bias_table(window, nominal_window=window).t().contiguous()
        if self.position_bias != 'table':
            self.add_module(_BIAS_NETWORKS[self.position_bias], None)
        self.position_bias = 'table'
        self.pretrained_window_size = window
        self.relative_position_bias_table = nn.Parameter(table.clone())
        self._tables.clear()

    def _compute_bias_table(self, window: Size, *, nominal_window: Size) -> Tensor:
        if self.position_bias == 'table':
            learnt = self.relative_position_bias_table
            table = learnt.to(torch.promote_types(learnt.dtype, torch.float32))
            table = resized_table(table, source=self.pretrained_window_size, target=nominal_window)
            return central_table(table, window=nominal_window, clipped=window)
        mlp = self.bias_network
        weight = next(mlp.parameters())
        coords = relative_coords(
            window,
            pretrained_window_size=self.pretrained_window_size,
            kind=self.position_bias,
            device=weight.device,
            dtype=torch.promote_types(weight.dtype, torch.float32),
        )
        return cpb_table(coords, mlp=mlp)

    def forward(self, x: Tensor, grid: WindowGrid) -> Tensor:
        """Attend within the windows of ``grid``.

        Shapes:
            (B, H, W, C) -> (B, H, W, C)
        """
        return self.proj(self._without_autocast(self.backend, x, grid))

    def token_weights(self, x: Tensor, grid: WindowGrid, *, token: Size) -> Tensor:
        """Return how one token weights the others; see ``weights.token_weights``.

        Shapes:
            (B, H, W, C) -> (B, heads, H, W), NaN outside of the token's window

        Raises:
            ValueError: If the similarity is ``dot``.
        """
        if self.similarity == 'dot':
            raise ValueError("weights of tokens are defined for similarity='cosine' only")
        return self._without_autocast(partial(token_weights, token=token), x, grid)

    def _without_autocast(self, compute: Backend, x: Tensor, grid: WindowGrid) -> Tensor:
        qkv_bias = self._kept(('qkv_bias',), [self.q_bias, self.v_bias], self._qkv_bias)
        qkv = linear(x, self.qkv.weight, qkv_bias)
        # Logits reach 100: half precision there, and in the bias network, costs accuracy.
        device = x.device.type
        # Not entered without need: the meta device knows no autocast.
        is_autocast = device != 'meta' and torch.is_autocast_enabled(device)
        with torch.autocast(device, enabled=False) if is_autocast else nullcontext():
            return compute(qkv, grid, self.logit_scale, self.bias_table(grid))
