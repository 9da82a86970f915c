"""SwinV2 and its peer implementations, built for one case with the same weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from swinv2_mm.checkpoint.layouts import HUGGINGFACE, MMPRETRAIN, TIMM, TORCHVISION, Layout
from swinv2_mm.checkpoint.saving import to_layout
from swinv2_mm.core import SwinTransformerV2
from swinv2_mm.core.attention import BACKENDS
from swinv2_mm.errors import UserError

from .cases import Case

# In a peer's state dict, but made from its settings.
_DERIVED = ('relative_position_index', 'relative_coords_table', 'attn_mask')
_BIAS_STD = 0.1


class CannotRun(Exception):
    """A peer has no way to do a case; the message says why."""


@dataclass(frozen=True)
class Variant:
    """A way to run our own backbone.

    Attributes:
        attention: A backend, or one per stage.
        with_cp: Whether all stages recompute their blocks in the backward pass.
    """

    attention: str | tuple[str, ...]
    with_cp: bool = False

    @classmethod
    def parse(cls, text: str) -> Variant:
        """Read ``sdpa``, ``sequential+cp`` or ``sequential,sdpa,sdpa,sdpa``.

        Raises:
            UserError: If there is no such backend.
        """
        names, plus, option = text.partition('+')
        parts = tuple(names.split(','))
        unknown = [name for name in parts if name not in ('auto', *BACKENDS)]
        if unknown or (plus and option != 'cp'):
            raise UserError(
                f"--attention '{text}': write one of auto, {', '.join(BACKENDS)}, or one per stage "
                'with commas, and +cp after it for activation checkpointing'
            )
        return cls(parts[0] if len(parts) == 1 else parts, bool(plus))

    def __str__(self) -> str:
        names = self.attention if isinstance(self.attention, str) else ','.join(self.attention)
        return names + ('+cp' if self.with_cp else '')


def build_ours(case: Case, *, variant: Variant) -> SwinTransformerV2:
    """Build our backbone, with values at which a block is no identity; the same every time."""
    backbone = SwinTransformerV2(
        case.arch,
        window_size=case.clipped_windows,
        drop_path_rate=0.0,
        out_indices=(len(case.arch.depths) - 1,),
        attention=variant.attention,
        with_cp=variant.with_cp,
    )
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        backbone.reset_parameters()
        for module in backbone.modules():
            if isinstance(module, nn.LayerNorm):
                module.weight.fill_(1)
                module.bias.normal_(std=_BIAS_STD)
    return backbone


def describe_attention(case: Case, *, variant: Variant, training: bool, compiled: bool) -> str:
    """Say what runs in each stage of our backbone on a CPU."""
    # One block per stage has the same choices.
    shallow = replace(case.arch, depths=(1,) * len(case.arch.depths))
    backbone = build_ours(replace(case, arch=shallow), variant=variant).train(training)
    return backbone.describe_attention(is_compiled=compiled)


class Ours(nn.Module):
    """Our backbone, with the map of the last stage as the others give it.

    Args:
        backbone: Returns one map.
    """

    def __init__(self, backbone: SwinTransformerV2) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H_px, W_px) -> (B, H, W, C)."""
        return self.backbone(x)[0].permute(0, 2, 3, 1)


class _Peer(nn.Module):
    """Another implementation, with its last map brought to (B, H, W, C).

    Args:
        model: The implementation.
        final: Computes that map from the model and an image.
    """

    def __init__(self, model: nn.Module, final: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.model = model
        self.final = final

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H_px, W_px) -> (B, H, W, C)."""
        return self.final(self.model, x)


def _timm(case: Case) -> _Peer:
    from timm.models.swin_transformer_v2 import SwinTransformerV2 as Model

    model = Model(
        img_size=case.size_px,
        window_size=case.window,
        num_classes=0,
        drop_path_rate=0.0,
        **_widths(case),
    )
    return _Peer(model, lambda m, x: m.forward_features(x))


def _transformers(case: Case) -> _Peer:
    from transformers import Swinv2Config, Swinv2Model

    config = Swinv2Config(
        image_size=case.size_px, window_size=case.window, drop_path_rate=0.0, **_widths(case)
    )
    rows = -(-case.size_px[0] // 2 ** (len(case.arch.depths) + 1))
    return _Peer(
        Swinv2Model(config, add_pooling_layer=False),
        lambda m, x: m(x).last_hidden_state.unflatten(1, (rows, -1)),
    )


def _torchvision(case: Case) -> _Peer:
    from torchvision.models import swin_transformer as library

    windows = case.clipped_windows

    # It never clips a window to the map by itself.
    def block(dim: int, heads: int, *, window_size: list, shift_size: list, **kwargs: object):  # noqa: ANN202
        window = windows[int(math.log2(dim // case.arch.embed_dim))]
        shift = [side // 2 if any(shift_size) else 0 for side in window]
        return library.SwinTransformerBlockV2(
            dim, heads, window_size=list(window), shift_size=shift, **kwargs
        )

    model = library.SwinTransformer(
        [4, 4],
        case.arch.embed_dim,
        list(case.arch.depths),
        list(case.arch.num_heads),
        [case.window] * 2,
        stochastic_depth_prob=0.0,
        num_classes=1,
        block=block,
        downsample_layer=library.PatchMergingV2,
    )
    model.head = nn.Identity()
    return _Peer(model, lambda m, x: m.norm(m.features(x)))


def mmpretrain_settings(case: Case) -> dict:
    """Return the arguments of mmpretrain's class, its window per stage as we clip ours.

    Raises:
        CannotRun: If a clipped window is not square.
    """
    if any(h != w for h, w in case.clipped_windows):
        raise CannotRun('its windows are square')
    return dict(
        arch=dict(
            embed_dims=case.arch.embed_dim,
            depths=list(case.arch.depths),
            num_heads=list(case.arch.num_heads),
            extra_norm_every_n_blocks=case.arch.extra_norm_every or 0,
        ),
        img_size=case.size_px,
        window_size=[side for side, _ in case.clipped_windows],
        drop_path_rate=0.0,
    )


def _mmpretrain(case: Case) -> _Peer:
    from mmpretrain.models import SwinTransformerV2 as Model

    return _Peer(Model(**mmpretrain_settings(case)), lambda m, x: m(x)[0].permute(0, 2, 3, 1))


def _widths(case: Case) -> dict:
    arch = case.arch
    return dict(embed_dim=arch.embed_dim, depths=list(arch.depths), num_heads=list(arch.num_heads))


PEERS: dict[str, tuple[Callable[[Case], _Peer], Layout]] = {
    'timm': (_timm, TIMM),
    'transformers': (_transformers, HUGGINGFACE),
    'torchvision': (_torchvision, TORCHVISION),
    'mmpretrain': (_mmpretrain, MMPRETRAIN),
}


def build_peer(name: str, case: Case) -> nn.Module:
    """Build another implementation and give it the weights of ``build_ours``.

    Raises:
        CannotRun: If it is not installed, or has no way to do the case.
    """
    build, layout = PEERS[name]
    try:
        if case.arch.extra_norm_every and layout is not MMPRETRAIN:
            raise CannotRun('it has no extra norms (paper section 3.6)')
        peer = build(case)
    except ImportError as error:
        raise CannotRun(f'not installed ({error})') from error
    give_weights(peer.model, layout=layout, backbone=build_ours(case, variant=Variant('eager')))
    return peer


def give_weights(model: nn.Module, *, layout: Layout, backbone: SwinTransformerV2) -> None:
    """Load our weights into another implementation.

    Raises:
        CannotRun: If a weight has no counterpart there, or the other way round.
    """
    weights, _ = to_layout(backbone, layout=layout)
    weights = {key: value for key, value in weights.items() if not key.endswith(_DERIVED)}
    keys = model.load_state_dict(weights, strict=False)
    missing = [key for key in keys.missing_keys if not key.endswith(_DERIVED)]
    if missing or keys.unexpected_keys:
        raise CannotRun(f'weights do not fit: {[*missing, *keys.unexpected_keys][:3]}')
