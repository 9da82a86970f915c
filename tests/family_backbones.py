"""Put SwinV2 in the place of the backbone of a model of mmdet, mmseg or mmpretrain."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from mmengine.config import ConfigDict

OWN_PX, SWINV2_PX = 128, 64  # sides of images
EMBED_DIM, TINY_EMBED_DIM = 16, 96
CHANNEL_KEYS = ('in_channels', 'c1_in_channels')


class NotFreeError(Exception):
    """The family has a backbone of its own."""


def channels(indices: Iterator[int], embed_dim: int) -> list[int]:
    return [embed_dim * 2**index for index in indices]


def put_swinv2(model: dict[str, Any], library: str) -> list[str]:
    """Change ``model``; return the lines that do the same for the size tiny.

    Raises:
        NotFreeError: If the family has a backbone of its own.
    """
    prefix = 'model'
    if 'backbone' not in model and 'backbone' in model.get('detector', {}):
        model, prefix = model['detector'], 'model.detector'
    if isinstance(model.get('image_encoder'), list):
        raise NotFreeError('its backbone is the first of a list of modules: image_encoder[0]')
    if (
        library == 'mmpretrain'
        and model['type'] == 'ImageClassifier'
        and not model.pop('free', False)
    ):
        raise NotFreeError('the family is a backbone')
    old = maps_of(model.get('backbone'), library)
    indices = indices_of(old, model['backbone'])
    lines = [
        f"{prefix}.backbone = dict(_delete_=True, type='SwinV2', arch='tiny', window_size=8, "
        f'out_indices={tuple(indices)})'
    ]
    old_channels = [shape[1] for shape in old]
    for path, node, key, picked in consumers(model, old_channels, library):
        places = [indices[i] for i in picked]
        node[key] = _like(node[key], channels(places, EMBED_DIM))
        lines.append(
            f'{prefix}.{path}.{key} = {_like(node[key], channels(places, TINY_EMBED_DIM))}'
        )
    if len(lines) == 1:
        raise NotFreeError('nothing behind the backbone has a setting for its channels')
    model['backbone'] = {
        'type': 'SwinV2',
        'arch': {'embed_dim': EMBED_DIM, 'depths': (1, 1, 1, 1), 'num_heads': (1, 2, 4, 8)},
        'window_size': 8,
        'out_indices': tuple(indices),
    }
    return lines


def _like(old: Any, new: list[int]) -> Any:
    return type(old)(new) if isinstance(old, (list, tuple)) else new[0]


def maps_of(backbone: dict[str, Any] | None, library: str) -> list[torch.Size]:
    """Shapes of what the family's own backbone returns."""
    from mmengine.registry import MODELS

    if backbone is None:
        raise NotFreeError('it has no backbone of a kind')
    try:
        module = MODELS.build(ConfigDict(copy.deepcopy(backbone)))
        module.eval()
        with torch.no_grad():
            outs = module(torch.zeros(1, 3, OWN_PX, OWN_PX))
    except Exception as error:
        raise NotFreeError(f'its backbone returns no plain maps ({error})') from error
    outs = [outs] if isinstance(outs, torch.Tensor) else list(outs)
    if not all(isinstance(out, torch.Tensor) and out.ndim == 4 for out in outs):
        raise NotFreeError('its backbone returns no plain maps')
    return [out.shape for out in outs]


def indices_of(shapes: list[torch.Size], backbone: dict[str, Any]) -> list[int]:
    """Stages of SwinV2 that return what is wanted."""
    strides = [OWN_PX / shape[-1] for shape in shapes]
    if set(strides) <= {4, 8, 16, 32} and len(set(strides)) == len(strides):
        return [{4: 0, 8: 1, 16: 2, 32: 3}[stride] for stride in strides]
    if len(strides) == 4 and len(set(strides)) > 1 and max(strides) <= 32:
        return [0, 1, 2, 3]  # dilated: the last maps are larger than ours
    text = ', '.join(f'{stride:g}' for stride in strides)
    raise NotFreeError(f'it wants maps of strides {text}')


def consumers(
    model: dict[str, Any], old: list[int], library: str
) -> Iterator[tuple[str, dict[str, Any], str, list[int]]]:
    """Settings that name channels of the backbone: path, dictionary, key, meant outputs."""
    neck = model.get('neck')
    if neck and any(key in (neck[0] if isinstance(neck, list) else neck) for key in CHANNEL_KEYS):
        places = [('neck', neck)]
        if 'JPU' in str(neck):  # which passes the other maps on
            places.append(('auxiliary_head', model['auxiliary_head']))
    else:
        heads = ('decode_head', 'auxiliary_head', 'head')
        places = [
            (key, value)
            for key, value in model.items()
            if key in heads or (key.endswith('_head') and library == 'mmdet')
        ]
    for name, place in places:
        for path, node in dictionaries(place, name):
            for key in CHANNEL_KEYS:
                value = node.get(key)
                if value is None:
                    continue
                index = node.get('in_index', -1) if library == 'mmseg' else None
                if key == 'c1_in_channels':
                    yield path, node, key, [0]
                elif isinstance(value, (list, tuple)):
                    if list(value) == old:
                        yield path, node, key, list(range(len(old)))
                    elif isinstance(index, (list, tuple)) and len(index) == len(value):
                        if max(index) >= len(old):
                            raise NotFreeError('its heads read several maps of one stride')
                        yield path, node, key, [range(len(old))[i] for i in index]
                elif library == 'mmseg' and name != 'neck' and isinstance(index, int):
                    if value == old[index]:
                        yield path, node, key, [range(len(old))[index]]
                elif value == old[-1]:
                    yield path, node, key, [len(old) - 1]
            if name == 'neck':
                break


def dictionaries(node: Any, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(node, dict):
        yield path, node
        for key, value in node.items():
            yield from dictionaries(value, f'{path}.{key}')
    elif isinstance(node, (list, tuple)):
        for index, value in enumerate(node):
            yield from dictionaries(value, f'{path}[{index}]')
