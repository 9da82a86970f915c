"""The Swin Transformer V2 backbone (arXiv 2111.09883)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .architectures import Architecture, resolve_architecture
from .attention import describe_backend, resolve_backend
from .attention.window_attention import Similarity
from .blocks import Mlp, NormOrder, Stage, draw_layers
from .freezing import freeze, set_frozen_to_eval
from .numerics import SWIN_NUMERICS, KeepsNumerics, NumericsName
from .patches import PatchEmbed
from .position_bias import PositionBias
from .stage_settings import (
    WindowSize,
    check_choices,
    check_stages,
    join_stages,
    per_stage,
    window_per_stage,
)
from .window_partition import Size, Tiling


class SwinTransformerV2(KeepsNumerics):
    """Swin Transformer V2 as a backbone: an image in, one map per chosen stage out.

    Args:
        arch: ``tiny``, ``small``, ``base``, ``large``, ``huge``, ``giant``, or a dict with
            ``embed_dim``, ``depths``, ``num_heads`` and, if wanted, ``extra_norm_every``.
        window_size: Side of a window in tokens: an int, or one entry per stage, each an int or
            (height, width).
        pretrained_window_sizes: Window that the position bias was trained at, in the same
            forms. ``None``: that of the checkpoint that is loaded; without one, ``window_size``.
        position_bias: ``log_cpb`` (the paper's choice), ``linear_cpb`` or ``table``.
        tiling: ``fixed``, or ``balanced``: equal windows of at most ``window_size`` with the
            least padding.
        drop_path_rate: Stochastic depth of the last block, in [0, 1); rises linearly from 0.
        out_indices: Stages whose normalised maps are returned.
        frozen_stages: The stem and the stages 0 to this one are not trained (their mergings
            too, but for the last, which leads to the first trained stage). -1: none.
        norm_eval: Keep batch statistics fixed in training. SwinV2 itself has only LayerNorms.
        with_cp: Recompute blocks in the backward pass to save memory: a bool, or one per stage.
        attention: Backend, see ``resolve_backend``: one name, or one per stage (the paper's section
            3.5 runs ``sequential`` in the first two).
        in_channels: Channels of the image.
        patch_size_px: Side of a patch.
        norm_order: Where the norms of a block are: ``res_post`` (the paper's choice), ``pre`` or
            ``sandwich``, for comparison (paper table 7).
        similarity: ``cosine`` (the paper's choice) or ``dot`` (table 6); ``dot`` runs with
            ``attention='auto'`` only. Weights of others are read for the default of both.
        numerics: ``official``, or ``mindspore``: epsilons and GELU as in MindCV. Weights bring
            their own: MindSpore's files, and what is saved after they were read.

    Attributes:
        pretrained_window_sizes_given: Whether ``pretrained_window_sizes`` was set, so that weights
            which say otherwise are refused.

    Raises:
        ValueError: If a value does not fit.
    """

    # Replaced by models of other maps (projects/video): number of axes, stem, backends.
    num_axes = 2
    patch_embed_type: type[nn.Module] = PatchEmbed
    resolve_backend = staticmethod(resolve_backend)

    # The stem has a convolution ``proj``; layers are a ModuleList.
    patch_embed: Any
    layers: Sequence[Stage]
    pretrained_window_sizes: Tensor

    def __init__(
        self,
        arch: str | Mapping[str, Any] | Architecture = 'tiny',
        *,
        window_size: WindowSize = 8,
        pretrained_window_sizes: WindowSize | None = None,
        position_bias: PositionBias = 'log_cpb',
        tiling: Tiling = 'fixed',
        drop_path_rate: float = 0.2,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool | Sequence[bool] = False,
        attention: str | Sequence[str] = 'auto',
        in_channels: int = 3,
        patch_size_px: int = 4,
        norm_order: NormOrder = 'res_post',
        similarity: Similarity = 'cosine',
        numerics: NumericsName = 'official',
    ) -> None:
        super().__init__()
        self.arch = resolve_architecture(arch)
        num_stages = len(self.arch.depths)
        windows = self._window_per_stage(window_size, name='window_size')
        pretrained = windows
        if pretrained_window_sizes is not None:
            pretrained = self._window_per_stage(
                pretrained_window_sizes, name='pretrained_window_sizes'
            )
        check_choices(
            position_bias=position_bias,
            tiling=tiling,
            norm_order=norm_order,
            similarity=similarity,
            attention=attention,
        )
        if not 0 <= drop_path_rate < 1:
            raise ValueError(f'drop_path_rate must be in [0, 1), got {drop_path_rate}')
        self.out_indices = tuple(out_indices)
        check_stages(self.out_indices, frozen_stages=frozen_stages, num_stages=num_stages)
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval
        self.pretrained_window_sizes_given = pretrained_window_sizes is not None

        self.patch_embed = self.patch_embed_type(
            in_channels, dim=self.arch.embed_dim, patch_size_px=patch_size_px
        )
        # Plain arithmetic: on the meta device a tensor has no values to read.
        num_blocks = sum(self.arch.depths)
        rates = [drop_path_rate * i / max(num_blocks - 1, 1) for i in range(num_blocks)]
        backends = per_stage(attention, num_stages, name='attention')
        stages = []
        for i, depth in enumerate(self.arch.depths):
            stage = Stage(
                self.arch.dims[i],
                num_heads=self.arch.num_heads[i],
                window=windows[i],
                pretrained_window_size=pretrained[i],
                position_bias=position_bias,
                tiling=tiling,
                drop_path_rates=rates[sum(self.arch.depths[:i]) :][:depth],
                extra_norm_every=self.arch.extra_norm_every,
                with_downsample=i < num_stages - 1,
                with_cp=per_stage(with_cp, num_stages, name='with_cp')[i],
                backend=self.resolve_backend(backends[i]),
                norm_order=norm_order,
                similarity=similarity,
            )
            stages.append(stage)
        self.layers = nn.ModuleList(stages)  # type: ignore[assignment]
        for i in self.out_indices:
            self.add_module(f'norm{i}', nn.LayerNorm(self.arch.dims[i]))
        # Part of the weights: a bias network is meaningless without the window it was trained at.
        self.register_buffer('pretrained_window_sizes', torch.tensor(pretrained))
        self.reset_parameters()
        self.set_numerics(numerics)
        freeze(self)
        self.train(self.training)

    @property
    def out_channels(self) -> tuple[int, ...]:
        """Channels of each returned map."""
        return tuple(self.arch.dims[i] for i in self.out_indices)

    @property
    def out_strides(self) -> tuple[int, ...]:
        """Pixels per token of each returned map."""
        return tuple(map(self._stride_px, self.out_indices))

    def _stride_px(self, stage: int) -> int:
        return self.patch_embed.proj.stride[-1] * 2**stage

    @property
    def window_sizes(self) -> tuple[Size, ...]:
        """Window of each stage, in tokens."""
        return tuple(stage.window for stage in self.layers)

    def get_pretrained_window_sizes(self) -> tuple[Size, ...]:
        """Return the buffer ``pretrained_window_sizes`` as numbers, on whatever device it is."""
        # The numbers that were passed down: reading a tensor of a GPU would wait for it.
        return tuple(stage.blocks[0].attn.pretrained_window_size for stage in self.layers)

    def describe_attention(self, *, is_compiled: bool = False) -> str:
        """Say in one line which attention runs in each stage, on the model's device.

        For example ``attention: stages 0-3 grouped (sdpa on a CPU)``.

        Args:
            is_compiled: Whether the model runs through ``torch.compile``.
        """
        like = next(self.parameters())
        kinds = [
            describe_backend(
                stage.blocks[0].attn.backend,
                like,
                window=stage.window,
                head_dim=dim // heads,
                needs_grad=self.training,
                is_compiled=is_compiled,
            )
            for stage, dim, heads in zip(
                self.layers, self.arch.dims, self.arch.num_heads, strict=True
            )
        ]
        return f'attention: {join_stages(kinds)}'

    def set_window_size(self, window_size: WindowSize) -> None:
        """Change the windows, before or after loading weights; no parameter is touched.

        Raises:
            ValueError: If ``window_size`` is not one positive window per stage.
        """
        windows = self._window_per_stage(window_size, name='window_size')
        for stage, window in zip(self.layers, windows, strict=True):
            stage.window = window

    def set_numerics(self, numerics: NumericsName) -> None:
        """Compute as another implementation does with the same weights; see ``Numerics``.

        Raises:
            ValueError: If the name is unknown.
        """
        super().set_numerics(numerics)
        values = SWIN_NUMERICS[numerics]
        for module in self.modules():
            if isinstance(module, nn.LayerNorm):
                module.eps = values.norm_eps
            elif isinstance(module, Mlp):
                module.gelu = values.gelu
        for stage in self.layers:
            if stage.downsample is not None:
                stage.downsample.norm.eps = values.merging_norm_eps

    def set_pretrained_window_sizes(self, pretrained_window_sizes: WindowSize) -> None:
        """Set the windows that the weights about to be loaded were trained at.

        Raises:
            ValueError: If ``pretrained_window_sizes`` is not one positive window per stage.
        """
        pretrained = self._window_per_stage(pretrained_window_sizes, name='pretrained_window_sizes')
        for stage, window in zip(self.layers, pretrained, strict=True):
            for block in stage.blocks:
                block.attn.set_pretrained_window_size(window)
        self.pretrained_window_sizes.copy_(torch.tensor(pretrained))

    def bake_position_bias(self, *, largest_px: tuple[int, int] | None = None) -> None:
        """Fix the position bias at the present windows, for inference (paper 3.3).

        Each bias network is replaced by a table of its values. Outputs stay what they are at
        these windows, and where a small map clips them; at others the table is interpolated.

        Args:
            largest_px: Height and width of the largest image, if known: windows are clipped to its
                maps.
        """
        for i, stage in enumerate(self.layers):
            window = stage.window
            if largest_px is not None:
                map_size = tuple(-(-side // self._stride_px(i)) for side in largest_px)
                window = tuple(map(min, window, map_size))
            for block in stage.blocks:
                block.attn.bake(stage.window, map_size=window)
            stage.window = window
        self.set_pretrained_window_sizes(self.window_sizes)

    def reset_parameters(self) -> None:
        """Draw weights as the official code does: a block starts as the identity."""
        draw_layers(self)
        for stage in self.layers:
            for block in stage.blocks:
                block.reset_parameters()
        # Not only at construction: a model built on the meta device has no values before this.
        self.pretrained_window_sizes.copy_(torch.tensor(self.get_pretrained_window_sizes()))

    def train(self, mode: bool = True) -> SwinTransformerV2:
        """Set the mode; frozen parts stay in eval."""
        super().train(mode)
        set_frozen_to_eval(self)
        return self

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the normalised map of each stage in ``out_indices``.

        Shapes:
            (B, in_channels, H_px, W_px) -> tuple of (B, C_i, ceil(H_px / s_i), ceil(W_px / s_i))
        """
        return self.forward_tokens(self.patch_embed(x))

    def forward_tokens(self, x: Tensor) -> tuple[Tensor, ...]:
        """Run the stages on embedded patches, as ``forward`` does.

        Between the two, masked-image pre-training puts its mask token.

        Shapes:
            (B, H, W, C) -> tuple of (B, C_i, ceil(H / 2**i), ceil(W / 2**i))
        """
        outs = []
        for i, stage in enumerate(self.layers):
            x = stage(x)
            if i in self.out_indices:
                out = self.get_submodule(f'norm{i}')(x).movedim(-1, 1)
                # Unlike contiguous(), this asks for no size: exported graphs leave it open.
                outs.append(out.clone(memory_format=torch.contiguous_format))
            if i == max(self.out_indices):
                break
            if stage.downsample is not None:
                x = stage.downsample(x)
        return tuple(outs)

    def _window_per_stage(self, value: WindowSize, *, name: str) -> tuple[Size, ...]:
        return window_per_stage(
            value, num_stages=len(self.arch.depths), num_axes=self.num_axes, name=name
        )

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # Runs before the children load, so that a learnt table has its final shape by then.
        sizes = state_dict.get(f'{prefix}pretrained_window_sizes')
        if sizes is not None and sizes.shape == self.pretrained_window_sizes.shape:
            loaded = tuple(tuple(size) for size in sizes.long().tolist())
            present = self.get_pretrained_window_sizes()
            if self.pretrained_window_sizes_given and loaded != present:
                error_msgs = args[-1]
                error_msgs.append(
                    f'the weights say that their position bias was trained at windows {loaded}, '
                    f'pretrained_window_sizes says {present}; leave the setting out'
                )
                return
            self.set_pretrained_window_sizes(loaded)
        super()._load_from_state_dict(state_dict, prefix, *args)
