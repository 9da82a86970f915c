"""Every model family of mmdet, mmseg and mmpretrain without compiled mmcv.

A family is a folder of configs of a library; one config of it, the smallest by name, is built,
trains a step on two images, and predicts. Where it takes a backbone, that is SwinV2, narrow, with
the channels of neck or heads changed to fit.

``python tests/model_families.py RESULTS`` adds what is not there yet to a file of results, which
``--write`` turns into the tables of ``docs/model_families.md``.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import json
import multiprocessing
import os
import re
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import torch
from family_backbones import (
    OWN_PX,
    SWINV2_PX,
    NotFreeError,
    dictionaries,
    put_swinv2,
)
from family_data import classification_data, detection_data, segmentation_data
from mmengine.config import Config, ConfigDict
from mmengine.logging import MessageHub
from shrinking import LARGEST

import swinv2_mm.models  # noqa: F401  puts the stand-in for mmcv's ops in place

DOCUMENT = Path(__file__).parents[1] / 'docs/model_families.md'
LIBRARIES = ('mmdet', 'mmseg', 'mmpretrain')
STEPS = ('builds', 'trains', 'predicts')
SMALLER = LARGEST | {'num_proposals': 20, 'sos_token_num': 20}
SECONDS = 300  # for one family
MAX_PARAMETERS = 150e6

# Words in the names of configs, smallest models first.
SMALL = (
    'nano', 'atto', 'xxsmall', 'xsmall', 'tiny', 'r18', 'swin-t', '-b0', '_b0', 's0', 'A0', '_s_',
    '-s_', '-5m', 'w18', 'hr18', 'resnet18', 'small', 's12', 'vgg11', 'r50', 'resnet50', 'base',
)  # fmt: skip
LAST = (
    'tta',
    'headless',
    'sync',
    'x101',
    'huge',
    'policies',
    '_deploy',
    'delopy',
    'itpn-clip',
    'levir',
)
CHOSEN = {
    'mmdet/bytetrack': 'bytetrack_yolox_x_8xb4-80e_crowdhuman-mot20train_test-mot20test.py',
    'mmdet/strongsort': 'strongsort_yolox_x_8xb4-80e_crowdhuman-mot20train_test-mot20test.py',
    'mmdet/strong_baselines': 'mask-rcnn_r50_fpn_rpn-2conv_4conv1fc_syncbn-all_lsj-100e_coco.py',
    'mmdet/simple_copy_paste': (
        'mask-rcnn_r50_fpn_rpn-2conv_4conv1fc_syncbn-all_32xb2-ssj-270k_coco.py'
    ),
    'mmdet/dcn': 'faster-rcnn_r50_fpn_dpool_1x_coco.py',
    'mmdet/dcnv2': 'faster-rcnn_r50_fpn_mdpool_1x_coco.py',
    'mmdet/cascade_rpn': 'cascade-rpn_faster-rcnn_r50-caffe_fpn_1x_coco.py',
    'mmdet/sort': 'sort_faster-rcnn_r50_fpn_8xb2-4e_mot17halftrain_test-mot17halfval.py',
    'mmpretrain/glip': 'glip-t_headless.py',
    'mmdet/detectors': 'detectors_cascade-rcnn_r50_1x_coco.py',
    'mmdet/fpg': 'retinanet_r50_fpg_crop640_50e_coco.py',
    'mmdet/nas_fpn': 'retinanet_r50_nasfpn_crop640-50e_coco.py',
    'mmdet/pisa': 'mask-rcnn_r50_fpn_pisa_1x_coco.py',
    'mmdet/guided_anchoring': 'ga-retinanet_r50_fpn_1x_coco.py',
}
# Classifiers whose backbone is of the user's choice.
FREE_CLASSIFIERS = ('arcface', 'csra')


NOT_FREE = {
    'mmdet/ssd': 'its neck passes maps on, so that the channels of its heads change with them',
    'mmdet/tridentnet': 'its heads read the branches of its backbone',
    'mmseg/ddrnet': 'in training its backbone returns two maps, for two losses',
    'mmseg/pidnet': 'in training its backbone returns three maps, for three losses',
    'mmseg/segmenter': 'its head has the width of its transformer',
}
# Sides of images for backbones that do not fit smaller ones.
SIDES = {'mmdet/ssd': 300, 'mmseg/mobilenet_v3': 512}


# --- the table of families ----------------------------------------------------------------------


def folder(library: str) -> Path:
    return Path(find_spec(library).submodule_search_locations[0]) / '.mim/configs'


def families(library: str) -> list[str]:
    return sorted(
        path.name
        for path in folder(library).iterdir()
        if path.is_dir() and path.name not in ('_base_', 'common')  # no whole configs
    )


def config_of(family: str) -> Path:
    library, _, name = family.partition('/')
    place = folder(library) / name
    if family in CHOSEN:
        return place / CHOSEN[family]

    def size(path: Path) -> tuple:
        late = sum(word in path.name for word in LAST)
        small = next((i for i, word in enumerate(SMALL) if word in path.name), len(SMALL))
        return late, small, len(path.name), path.name

    return min(place.glob('*.py'), key=size)


# --- a model that runs here ---------------------------------------------------------------------


def simplified(node: Any, *, is_dense: bool) -> Any:
    """No released weights, no normalisation over processes, few proposals."""
    if isinstance(node, dict):
        node = {key: simplified(value, is_dense=is_dense) for key, value in node.items()}
        if node.get('type') in ('SyncBN', 'SyncBatchNorm'):
            node['type'] = 'BN'
        if isinstance(node.get('init_cfg'), dict) and 'checkpoint' in node['init_cfg']:
            node['init_cfg'] = None
        for key in {'pretrained', 'teacher_ckpt'} & node.keys():
            node[key] = (
                False if isinstance(node[key], bool) or 'TIMM' in str(node['type']) else None
            )
        if is_dense:
            for key in SMALLER.keys() & node.keys():
                # Only in transformers: elsewhere other settings depend on the number of layers.
                is_free = key != 'num_layers' or 'layer_cfg' in node or 'transformerlayers' in node
                if type(node[key]) is int and is_free:
                    node[key] = min(node[key], SMALLER[key])
                    if key == 'num_layers' and 'num_cp' in node:
                        node['num_cp'] = 0  # saves memory, by fairscale
        if 'prototype' in node:
            node['prototype'] = torch.rand(10, node['head']['in_channels'])
        if is_dense and node.get('mode') == 'slide':
            node = {'mode': 'whole'}
        return node
    if isinstance(node, (list, tuple)):
        return type(node)(simplified(item, is_dense=is_dense) for item in node)
    return node


def set_size(model: dict[str, Any], side: int) -> None:
    """Let the data preprocessor pad to images of ``side``, and backbones expect them."""
    for _, node in dictionaries(model, ''):
        if 'img_size' in node:
            node['img_size'] = side if isinstance(node['img_size'], int) else (side, side)
    for _, node in dictionaries(model.get('data_preprocessor'), ''):
        if node.get('type') == 'BatchFixedSizePad':
            node['size'] = (side, side)
        if node.get('type') == 'SegDataPreProcessor':
            node['size'] = (side, side)
            for key in ('test_cfg', 'size_divisor'):
                node.pop(key, None)


# --- one family ---------------------------------------------------------------------------------


def run(family: str) -> Iterator[dict[str, Any]]:
    """Return what is known of a family, more and more of it."""
    from mmengine.registry import MODELS, init_default_scope

    library, _, name = family.partition('/')
    __import__(f'{library}.utils', fromlist=['']).register_all_modules(False)
    path = config_of(family)
    os.chdir(folder(library).parent)
    row: dict[str, Any] = {'family': family, 'config': path.name, 'backbone': 'own'}
    init_default_scope(library)
    torch.manual_seed(0)
    np.random.seed(0)
    row['step'] = 'builds'
    yield row
    cfg = Config.fromfile(path)
    init_default_scope(library)
    settings = simplified(cfg.model.to_dict(), is_dense=library != 'mmpretrain')
    if 'data_preprocessor' in cfg:  # as the Runner does
        settings.setdefault('data_preprocessor', cfg.data_preprocessor.to_dict())
    swapped = copy.deepcopy(settings)
    swapped['free'] = name in FREE_CLASSIFIERS
    try:
        if family in NOT_FREE:
            raise NotFreeError(NOT_FREE[family])
        row['lines'] = put_swinv2(swapped, library)
        row['backbone'], settings = 'SwinV2', swapped
    except NotFreeError as reason:
        row['reason'] = str(reason)
    settings.pop('free', None)
    side = SWINV2_PX if row['backbone'] == 'SwinV2' else SIDES.get(family, OWN_PX)
    if library != 'mmpretrain':
        set_size(settings, side)
    settings = ConfigDict(settings)
    yield row
    count = 0
    if row['backbone'] == 'own':
        with torch.device('meta'), contextlib.suppress(Exception):
            count = sum(p.numel() for p in MODELS.build(copy.deepcopy(settings)).parameters())
    if count > MAX_PARAMETERS:
        raise NotImplementedError(f'its config has {count / 1e6:.0f} million parameters')
    if 'MMSyncBN' in str(settings):  # asks for a process group
        torch.distributed.init_process_group(
            'gloo', store=torch.distributed.HashStore(), rank=0, world_size=1
        )
    model = MODELS.build(copy.deepcopy(settings))
    with contextlib.suppress(AttributeError):
        model.init_weights()
    row['builds'] = True
    row['step'] = 'trains'
    yield row

    hub = MessageHub.get_current_instance()
    for key, value in (('iter', 0), ('epoch', 0), ('max_iters', 100), ('max_epochs', 10)):
        hub.update_info(key, value)  # as the Runner does
    data_of: Callable = {'mmdet': detection_data, 'mmseg': segmentation_data}.get(library)
    data_of = data_of or classification_data

    model.train()
    try:
        row['trains'] = step(model, data_of(cfg, settings, is_training=True, side=side))
    except NotImplementedError as error:
        row['untrained'] = str(error)
    row['step'] = 'predicts'
    yield row
    model.eval()
    has_test = library != 'mmpretrain' or cfg.get('test_dataloader')
    data = data_of(cfg, settings, is_training=False, side=side)
    with torch.no_grad():
        data = model.data_preprocessor(data, False)
        if has_test:
            found = model(**data, mode='predict')
        else:
            inputs = data['inputs']
            view = inputs[0] if isinstance(inputs, list) else inputs
            found = model(view, data.get('data_samples'), mode='tensor')
    assert found is not None and len(found) > 0
    row['predicts'] = True
    yield row


def step(model: torch.nn.Module, data: dict[str, Any]) -> bool:
    """Train on two images; the loss is finite and moves the weights."""
    losses = model(**model.data_preprocessor(data, True), mode='loss')
    loss, _ = model.parse_losses(losses)
    assert torch.isfinite(loss), f'loss {loss}'
    loss.backward()
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    assert any(grad.abs().max() > 0 for grad in grads)
    backbone = (
        model.detector.backbone if hasattr(model, 'detector') else getattr(model, 'backbone', None)
    )
    if type(backbone).__name__ == 'SwinV2':
        grad = backbone.patch_embed.proj.weight.grad
        assert grad is not None and grad.abs().max() > 0, 'no gradient reaches SwinV2'
    torch.optim.SGD(model.parameters(), lr=1e-3).step()
    return True


def _child(family: str, connection: Any) -> None:
    row: dict[str, Any] = {'family': family}
    output = io.StringIO()
    warnings.simplefilter('ignore')
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            for row in run(family):
                connection.send(row)
    except BaseException as error:
        import traceback

        row['error'] = f'{type(error).__name__}: {str(error).strip()}'
        row['trace'] = traceback.format_exc()[-2500:]
    connection.send(row | {'done': True})


def measure(family: str) -> dict[str, Any]:
    """Run a family in a process of its own, for a limited time."""
    context = multiprocessing.get_context('fork')
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_child, args=(family, sender))
    started = time.monotonic()
    child.start()
    sender.close()
    row: dict[str, Any] = {'family': family}
    try:
        while not row.get('done'):
            if not receiver.poll(max(SECONDS - (time.monotonic() - started), 0)):
                row['error'] = f'not done in {SECONDS} s'
                break
            row = receiver.recv()
    except EOFError:
        row['error'] = 'the process died'
    child.kill()
    child.join()
    return row | {'seconds': round(time.monotonic() - started, 1)}


# --- the document -------------------------------------------------------------------------------

# Why a step of a family fails, by the family.
HUB = 'needs weights and tokenizer of a language model from the Hugging Face hub'
REASONS: dict[str, str] = {
    'mmdet/centripetalnet': 'Hourglass-104 has 200 million parameters: not run',
    'mmdet/clrnet': 'trained on lanes, in a format of its authors: not tried',
    'mmdet/cornernet': 'Hourglass-104 has 200 million parameters: not run',
    'mmdet/deepsort': 'mmdet trains its detector and its re-identification model apart',
    'mmdet/glip': HUB,
    'mmdet/grounding_dino': HUB,
    'mmdet/misc': 'models of detectron2, which is not installed',
    'mmdet/mm_grounding_dino': HUB,
    'mmdet/queryinst': 'untrained, it predicts boxes of no area, whose masks mmdet cannot draw',
    'mmdet/sort': 'mmdet trains its detector apart',
    'mmdet/ssd': "prediction reads `loss_cls`, which mmdet's SSDHead does not have",
    'mmdet/strongsort': 'downloads weights of a part when it is built',
    'mmseg/san': 'its text encoder has no initial values without the released CLIP weights',
    'mmseg/vpd': 'needs the package of Stable Diffusion (`ldm`)',
    'mmpretrain/beitv2': 'with its teacher 193 million parameters: not run',
    'mmpretrain/blip': HUB,
    'mmpretrain/blip2': "the library's config has an argument that its class does not have",
    'mmpretrain/chinese_clip': HUB,
    'mmpretrain/dinov2': 'a backbone alone: there is no head to train',
    'mmpretrain/efficientformer': 'its configs distil, which mmpretrain cannot train',
    'mmpretrain/eva': 'downloads its teacher, a CLIP, when it is built',
    'mmpretrain/flamingo': HUB,
    'mmpretrain/glip': 'a backbone alone: there is no head to train',
    'mmpretrain/levit': 'its configs distil, which mmpretrain cannot train',
    'mmpretrain/llava': HUB,
    'mmpretrain/minigpt4': HUB,
    'mmpretrain/ofa': HUB,
    'mmpretrain/otter': HUB,
    'mmpretrain/replknet': 'its config cannot be inherited: it imports a module',
    'mmpretrain/sam': 'a backbone alone: there is no head to train',
    'mmpretrain/milan': 'downloads its teacher, a CLIP, when it is built',
}


def read(results: Path) -> dict[str, dict[str, Any]]:
    """The newest row of each family."""
    lines = results.read_text().splitlines() if results.exists() else []
    return {row['family']: row for row in map(json.loads, lines)}


def table(library: str, rows: dict[str, dict[str, Any]]) -> list[str]:
    """The families of a library; below it why something fails."""
    lines = [
        '| family | config | backbone | builds | trains | predicts | settings, or why not SwinV2 |',
        '|' + 7 * '---|',
    ]
    reasons = []
    for name in families(library):
        row = rows[f'{library}/{name}']
        cells = ['yes' if row.get(step) else 'no' for step in STEPS]
        if 'no' in cells:
            reasons.append(f'- {name}: {REASONS[f"{library}/{name}"]}')
        if row['backbone'] == 'SwinV2':
            settings = '; '.join(f'`{line}`' for line in short(row))
        else:  # what an error says is in brackets
            settings = row.get('reason', '').split(' (')[0].replace('the family is a backbone', '')
        config = row['config'].removesuffix('.py')
        lines.append(f'| {" | ".join([name, config, row["backbone"], *cells, settings])} |')
    return [*lines, '', *reasons]


def short(row: dict[str, Any]) -> list[str]:
    """The lines of a row, without what is the same for all families."""
    backbone, *rest = (line.removeprefix('model.') for line in row['lines'])
    indices = re.search(r'out_indices=\(.*?\)', backbone)[0]
    rest = [line.replace(' = ', '=') for line in rest]
    return [indices, *rest] if indices != 'out_indices=(0, 1, 2, 3)' else rest


def counts(rows: dict[str, dict[str, Any]], before: dict[str, dict[str, Any]]) -> list[str]:
    lines = ['| | families | with SwinV2 | build | train | predict |', '|' + 6 * '---|']
    total = [0] * 8
    for library in LIBRARIES:
        names = [f'{library}/{name}' for name in families(library)]
        numbers = [len(names), sum(rows[name]['backbone'] == 'SwinV2' for name in names)]
        for step in STEPS:
            numbers.append(sum(bool(rows[name].get(step)) for name in names))
            numbers.append(sum(bool(before.get(name, rows[name]).get(step)) for name in names))
        lines.append(_count_row(library, numbers))
        total = [a + b for a, b in zip(total, numbers, strict=True)]
    return [*lines, _count_row('**all**', total)]


def _count_row(title: str, numbers: list[int]) -> str:
    cells = [f'{now} ({then})' for now, then in zip(numbers[2::2], numbers[3::2], strict=True)]
    return f'| {" | ".join([title, *map(str, numbers[:2]), *cells])} |'


def write(rows: dict[str, dict[str, Any]], before: dict[str, dict[str, Any]]) -> None:
    text = DOCUMENT.read_text()
    parts = {'counts': counts(rows, before)} | {
        library: table(library, rows) for library in LIBRARIES
    }
    for name, lines in parts.items():
        head, rest = text.split(f'<!-- table: {name} -->\n')
        rest = rest[rest.index('<!-- end of table -->') :]
        text = head + f'<!-- table: {name} -->\n' + '\n'.join(lines) + '\n' + rest
    DOCUMENT.write_text(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('results', type=Path)
    parser.add_argument('--only', nargs='*', default=[])
    parser.add_argument('--write', action='store_true')
    parser.add_argument('--before', type=Path, help='results of an earlier version, of what failed')
    args = parser.parse_args()
    if args.write:
        write(read(args.results), read(args.before) if args.before else {})
        return
    torch.set_num_threads(1)
    done = read(args.results)
    wanted = args.only or [f'{lib}/{name}' for lib in LIBRARIES for name in families(lib)]
    for library in LIBRARIES:
        __import__(f'{library}.models')
    for family in wanted:
        if family in done and not args.only:
            continue
        row = measure(family)
        with args.results.open('a') as file:
            file.write(json.dumps(row, default=repr) + '\n')
        cells = ' '.join(step for step in STEPS if row.get(step))
        error = row.get('error', row.get('untrained', ''))[:150]
        print(f'{family:30} {row.get("backbone", "")} {row["seconds"]} {cells} {error}', flush=True)


if __name__ == '__main__':
    main()
