"""Any config made small enough for a step in a second, by rules that name no config.

All widths are divided by one number, so that modules which fitted still fit and those which did not
still do not; all image sizes by another. Classes, losses and heads stay.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from mmengine.config import Config

from swinv2_mm.core.architectures import resolve_architecture

WIDTH_DIVISOR = 8
WIDTHS = {
    'in_channels', 'out_channels', 'feat_channels', 'channels', 'mid_channels', 'hidden_channels',
    'fc_out_channels', 'conv_out_channels', 'feedforward_channels', 'embed_dims', 'embed_dim',
    'hidden_dim', 'num_feats', 'dim', 'dims',
}  # fmt: skip
LARGEST = {
    'num_layers': 2, 'num_queries': 20, 'num': 16, 'num_points': 256, 'nms_pre': 100,
    'max_per_img': 20, 'max_per_image': 20, 'num_groups': 8,
}  # fmt: skip
DEPTHS = (1, 2, 1, 1)

IMAGE_PX = 64
SMALLEST_PX = 32  # of what counts as the size of an image
SIZES = {
    'scale', 'scales', 'crop_size', 'size', 'img_scale', 'max_size', 'image_size', 'pad_size',
    'img_size', 'size_px',
}  # fmt: skip


def shrink(cfg: Config, *, with_model: bool = True) -> dict[str, Any]:
    """One step of training on two images and a test on one, of a narrow and shallow model."""
    tree = cfg.to_dict()
    if with_model:
        tree['model'] = _walk(tree['model'], _smaller_model)
    divisor = max(_canvas(tree) / IMAGE_PX, 1)
    tree = _walk(tree, lambda key, value: _divided(value, divisor) if key in SIZES else value)
    for loader, batch in (('train_dataloader', 2), ('test_dataloader', 1)):
        tree[loader] |= {'batch_size': batch, 'num_workers': 0, 'persistent_workers': False}
        tree[loader].pop('prefetch_factor', None)
    tree |= {'val_dataloader': None, 'val_cfg': None, 'val_evaluator': None}
    steps = {'EpochBasedTrainLoop': 'max_epochs', 'IterBasedTrainLoop': 'max_iters'}
    loop = tree['train_cfg']['type']
    tree['train_cfg'] = {'type': loop, steps[loop]: 1}
    tree['load_from'] = None  # released weights, which do not fit and are not here
    hooks = tree['default_hooks']
    hooks['logger']['interval'] = hooks['checkpoint']['interval'] = 1
    hooks['checkpoint'].pop('save_best', None)
    if tree['optim_wrapper']['type'] == 'AmpOptimWrapper':  # needs a GPU
        tree['optim_wrapper'] = {
            key: value
            for key, value in tree['optim_wrapper'].items()
            if key not in ('dtype', 'loss_scale')
        } | {'type': 'OptimWrapper'}
    return tree


def as_text(tree: Mapping[str, Any]) -> str:
    """A config file that holds ``tree``."""
    return '\n'.join(f'{key} = {value!r}' for key, value in tree.items())


def _walk(node: Any, change: Callable[[str, Any], Any]) -> Any:
    """Apply ``change`` to every entry of every dictionary, innermost first."""
    if isinstance(node, Mapping):
        return {key: change(key, _walk(value, change)) for key, value in node.items()}
    if isinstance(node, (list, tuple)):
        return type(node)(_walk(item, change) for item in node)
    return node


def _smaller_model(key: str, value: Any) -> Any:
    if isinstance(value, Mapping) and value.get('type') in ('SwinV2', 'VideoSwinV2'):
        arch = resolve_architecture(value.get('arch', 'tiny'))
        # The width of a size that is spelt out has been divided already.
        divisor = 1 if isinstance(value.get('arch'), Mapping) else WIDTH_DIVISOR
        small = {
            'embed_dim': arch.embed_dim // divisor,
            'depths': DEPTHS,
            'num_heads': arch.num_heads,
        }
        if arch.extra_norm_every is not None:
            small['extra_norm_every'] = max(DEPTHS)
        return {k: v for k, v in value.items() if k != 'init_cfg'} | {'arch': small}
    if key in WIDTHS:
        return _divided(value, WIDTH_DIVISOR)
    if key == 'score_thr':
        return 0.0  # an untrained detector is sure of nothing, and then nothing is measured
    if key in LARGEST and type(value) is int:
        return min(value, LARGEST[key])
    return value


def _divided(value: Any, divisor: float) -> Any:
    """Divide the whole numbers in ``value`` that are large enough to be a width or a size."""
    if isinstance(value, (list, tuple)):
        return type(value)(_divided(item, divisor) for item in value)
    if type(value) is int and value >= SMALLEST_PX:
        return max(round(value / divisor), 1)
    return value


def _canvas(tree: Mapping[str, Any]) -> int:
    """The largest image side that is meant: of a (long, short) pair, the short one."""
    found = [SMALLEST_PX]

    def note(key: str, value: Any) -> Any:
        if key in SIZES - {'max_size'}:
            found.extend(_short_sides(value))
        return value

    _walk(tree, note)
    return max(found)


def _short_sides(value: Any) -> Iterator[int]:
    if type(value) is int:
        yield value
    elif isinstance(value, (list, tuple)):
        if len(value) == 2 and all(type(item) is int for item in value):
            yield min(value)
        else:
            for item in value:
                yield from _short_sides(item)
