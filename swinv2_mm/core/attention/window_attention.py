"""Scaled cosine attention in windows (paper equation 2): the parameters and their bias table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, fx, nn

from ..linear import linear
from ..position_bias import PositionBias, coords_of, cpb_table, fitted_table
from ..tensor_cache import CONSTANTS
from ..torch_private import is_faking
from ..tracing import fx_leaf, is_plain, is_traced
from ..window_partition import Size, WindowGrid, window_grid
from .backends import Backend
from .eager import dot_product
from .prologue import without_autocast
from .weights import token_weights

Similarity = Literal['cosine', 'dot']
_CPB_HIDDEN_DIM = 512
# Different names, so that weights of one are never taken for those of the other.
_BIAS_NETWORKS = {'log_cpb': 'cpb_mlp', 'linear_cpb': 'linear_cpb_mlp'}
# Bias tables cached in eval, per block: one per shape that a clipped window takes.
_MAX_KEPT = 8


class _Kept(NamedTuple):
    """A table, and the values of the parameters that it follows from."""

    values: Sequence[Tensor]
    table: Tensor

    def is_of(self, parameters: Sequence[Tensor]) -> bool:
        """Whether the parameters still have these values.

        Values are compared, as writing to ``parameter.data`` does not change a tensor's version.
        """
        return all(
            old.dtype == new.dtype and torch.equal(old, new)
            for old, new in zip(self.values, parameters, strict=True)
        )


@fx_leaf
def _joined_bias(q_bias: Tensor, v_bias: Tensor) -> Tensor:
    """Join the biases of queries and values: (C,), (C,) -> (3C,); keys have none."""
    key = ('no bias', type(q_bias), len(q_bias), q_bias.device, q_bias.dtype)
    no_bias = CONSTANTS.get(key, lambda: torch.zeros_like(q_bias))
    return torch.cat((q_bias, no_bias, v_bias))


class WindowAttention(nn.Module):
    """Multi-head cosine attention in windows, with a relative position bias.

    Args:
        dim: Channels C.
        num_heads: Attention heads; they divide ``dim``.
        position_bias: ``log_cpb``, ``linear_cpb`` or ``table`` (paper table 1).
        pretrained_window_size: Window that the bias is, or was, trained at.
        backend: See ``resolve_backend``; ``dot`` has one of its own.
        similarity: ``cosine`` of queries and keys times a learnt scale (equation 2), or ``dot``,
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
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
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
        self.proj = nn.Linear(dim, dim)
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

        In eval, without gradients, on a CPU it is cached until the value of a parameter changes.
        Elsewhere a look at the values would wait for the device: ``bake`` saves the network there.

        Shapes:
            -> (heads, (2Mh - 1) * (2Mw - 1)), at least float32
        """
        parameters = self._bias_parameters()
        if not self._may_keep(parameters, grid):
            return self._compute_bias_table(grid)
        # Tensors made in inference mode must not reach autograd.
        key = (grid.window, grid.nominal_window, torch.is_inference_mode_enabled())
        kept = self._tables.get(key)
        if kept is not None and kept.is_of(parameters):
            return kept.table
        if kept is None and len(self._tables) >= _MAX_KEPT:
            self._tables.clear()
        values = [p.detach().clone() for p in parameters]
        table = self._compute_bias_table(grid).detach()
        self._tables[key] = _Kept(values, table)
        return table

    def _bias_parameters(self) -> list[Tensor]:
        """The tensors that the bias follows from; none where its network has been changed."""
        if self.position_bias == 'table':
            return [self.relative_position_bias_table]
        first, _, last = self.bias_network
        if not is_plain(first) or not is_plain(last):
            return []
        # Not from parameters(): the replicas of DataParallel have none.
        return [first.weight, first.bias, last.weight]

    def _may_keep(self, parameters: Sequence[Tensor], grid: WindowGrid) -> bool:
        if self.training or torch.compiler.is_compiling() or not parameters:
            return False
        if type(grid) is not WindowGrid or is_traced(*parameters) or is_faking():
            return False
        needs_graph = torch.is_grad_enabled() and any(p.requires_grad for p in parameters)
        return not needs_graph and all(p.device.type == 'cpu' for p in parameters)

    def bake(self, window: Size, *, map_size: Size) -> None:
        """Replace the bias network, or a table of another size, by the bias at one window.

        Args:
            window: Sides of the window.
            map_size: Of the largest map, to which the window is clipped.
        """
        grid = window_grid(map_size, window=window, shifted=False, tiling='fixed')
        with torch.no_grad():
            table = self._compute_bias_table(grid).t().contiguous()
        if self.position_bias != 'table':
            self.add_module(_BIAS_NETWORKS[self.position_bias], None)
        self.position_bias = 'table'
        self.pretrained_window_size = grid.window
        self.relative_position_bias_table = nn.Parameter(table.clone())
        self._tables.clear()

    def _compute_bias_table(self, grid: WindowGrid) -> Tensor:
        if self.position_bias == 'table':
            learnt = self.relative_position_bias_table
            return fitted_table(grid, learnt=learnt, source=self.pretrained_window_size)
        first = self.bias_network[0]
        coords = coords_of(
            grid,
            pretrained_window_size=self.pretrained_window_size,
            kind=self.position_bias,
            # A layer that was quantised has no tensor of its own.
            like=first.weight if is_plain(first) else self.q_bias,
        )
        return cpb_table(coords, mlp=self.bias_network)

    def forward(self, x: Tensor, grid: WindowGrid) -> Tensor:
        """Attend within the windows of ``grid``.

        Shapes:
            (B, H, W, C) -> (B, H, W, C)
        """
        return linear(self.proj, self.attend(x, grid))

    def attend(self, x: Tensor, grid: WindowGrid) -> Tensor:
        """Return what the heads attend to, side by side, before the projection.

        Shapes:
            (B, H, W, C) -> (B, H, W, C)
        """
        return self._without_autocast(self.backend, x, grid)

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
        qkv = linear(self.qkv, x, bias=_joined_bias(self.q_bias, self.v_bias))
        # A graph of torch.fx holds no contexts: backends see to it again.
        with nullcontext() if isinstance(x, fx.Proxy) else without_autocast(x.device):
            return compute(qkv, grid, self.logit_scale, self.bias_table(grid))
