"""Build the model that a weights file describes, to inspect, convert or test it."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from swinv2_mm.core import Architecture, SwinTransformerV2
from swinv2_mm.core.stage_settings import WindowSize

from .architecture import architecture_of, position_bias_of
from .errors import CheckpointError
from .fitting import OUTPUT_NORM
from .heads import head_in
from .load_report import LoadReport
from .loading import load_pretrained
from .pretrained_windows import find_pretrained_window_sizes
from .reading import Source, Weights, open_weights
from .recognition import recognise
from .rules import translate
from .stem import STEM

_RELEASED_NUM_STAGES = 4
_MOST_BLOCKS = 1000


class LoadedModel(nn.Module):
    """A backbone and, if the weights have one, their linear classification head.

    Args:
        backbone: Returns the map of the last stage, at least.
        head: Linear layer from the backbone's channels to classes.
    """

    def __init__(self, backbone: SwinTransformerV2, *, head: nn.Linear | None) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        """Return the scores of the classes, or, without a head, the pooled features.

        Shapes:
            (B, in_channels, H_px, W_px) -> (B, num_classes) or (B, C of the last stage)
        """
        pooled = self.backbone(x)[-1].mean((2, 3))
        return pooled if self.head is None else self.head(pooled)


def model_of(
    source: Source, *, pretrained_window_sizes: WindowSize | None = None
) -> tuple[LoadedModel, LoadReport]:
    """Build the model that weights belong to, at the windows of their training, and load them.

    Args:
        source: As ``load_pretrained`` takes it.
        pretrained_window_sizes: Windows of the pretraining, where the weights do not tell.

    Returns:
        The model in eval mode, and the report of loading.

    Raises:
        CheckpointError: If the weights cannot be read, or make up no whole backbone.
        ValueError: If the given windows do not fit.
    """
    weights = open_weights(source)
    try:
        model = _matching(weights, pretrained_window_sizes=pretrained_window_sizes)
    except CheckpointError as error:
        raise CheckpointError(f'{weights.origin}: {error}') from None
    return model, load_pretrained(model.eval(), weights)


def _matching(weights: Weights, *, pretrained_window_sizes: WindowSize | None) -> LoadedModel:
    layout, prefix = recognise(weights.tensors)
    inside = {
        name.removeprefix(prefix): value
        for name, value in weights.tensors.items()
        if name.startswith(prefix)
    }
    num_stages = _RELEASED_NUM_STAGES
    # What the last norm is called depends on the number of stages, which the blocks tell.
    for _ in range(2):
        own = translate(inside, rules=layout.reading_rules(num_stages=num_stages)).values
        found = architecture_of(own)
        if found is None:
            raise CheckpointError('the weights make up no whole SwinV2: a stage or its stem lacks')
        arch = found
        num_stages = len(arch.depths)
    _check_size(arch, weights.tensors)
    position_bias = position_bias_of(own) or 'log_cpb'
    windows = pretrained_window_sizes or find_pretrained_window_sizes(
        own,
        num_stages=num_stages,
        position_bias=position_bias,
        declared=weights.declared_window_sizes,
    )
    if windows is None:
        raise CheckpointError(
            f'{layout.name} weights do not say which windows they were trained at: give '
            '--pretrained-window-sizes, such as 12 12 12 6'
        )
    stages = {int(m[1]) for name in own if (m := OUTPUT_NORM.fullmatch(name))}
    stem = own[STEM]
    backbone = SwinTransformerV2(
        arch,
        window_size=windows,
        pretrained_window_sizes=pretrained_window_sizes,
        position_bias=position_bias,
        drop_path_rate=0.0,
        out_indices=sorted(s for s in stages if s < num_stages) or (num_stages - 1,),
        in_channels=stem.shape[1],
        patch_size_px=stem.shape[2],
    )
    name = head_in(weights.tensors, prefix=prefix)
    if name is None or num_stages - 1 not in backbone.out_indices:
        return LoadedModel(backbone, head=None)
    num_classes, dim = weights.tensors[f'{name}.weight'].shape
    if dim != backbone.out_channels[-1]:
        return LoadedModel(backbone, head=None)
    bias = f'{name}.bias' in weights.tensors
    return LoadedModel(backbone, head=nn.Linear(dim, num_classes, bias=bias))


def _check_size(arch: Architecture, tensors: Mapping[str, Tensor]) -> None:
    """Refuse, before it is built, a model that is larger than what the file holds."""
    # Each block has 12 C^2 weights in qkv, proj and the MLP, beside smaller ones.
    num_weights = sum(
        12 * depth * (arch.embed_dim * 2**stage) ** 2 for stage, depth in enumerate(arch.depths)
    )
    storages = (value.untyped_storage() for value in tensors.values())
    num_bytes = sum({s.data_ptr(): s.nbytes() for s in storages}.values())
    if num_weights > num_bytes or sum(arch.depths) > _MOST_BLOCKS:
        raise CheckpointError(
            f'the weights make up no whole SwinV2: by their shapes it has embed_dim '
            f'{arch.embed_dim} and {sum(arch.depths)} blocks, {num_weights:,} values or more'
        )
