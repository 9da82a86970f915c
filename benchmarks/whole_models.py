"""A training step of a detector or segmentor with our backbone or mmpretrain's inside."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import OptimWrapper
from mmengine.registry import MODELS
from mmengine.structures import InstanceData, PixelData
from torch import Tensor, nn

from swinv2_mm.checkpoint.layouts import MMPRETRAIN
from swinv2_mm.core import SwinTransformerV2

from .backbones import CannotRun, Variant, give_weights, mmpretrain_settings
from .cases import TASKS, Case

TASK_PEERS = ('mmpretrain',)
_CONFIGS = Path(__file__).resolve().parents[1] / 'configs'
_NUM_OBJECTS = 8
_HEAD_STD = 0.01
# So small that the weights, and with them the work, stay the same from step to step.
_LEARNING_RATE = 1e-9


def training_step(
    case: Case, *, backbone: Variant | str, device: torch.device
) -> tuple[nn.Module, Callable[[], Tensor], Callable[[], Tensor]]:
    """Build a whole model and its step on random images: forward, losses, backward, AdamW.

    Args:
        case: A case that has a task.
        backbone: Ours, or ``mmpretrain``.

    Returns:
        The model, the whole step, and its forward part with the losses.

    Raises:
        CannotRun: If a library is not installed.
    """
    path = _CONFIGS / TASKS[case.task]
    if not path.is_file():
        raise CannotRun('the recipes (configs/) are not beside the package')
    cfg = Config.fromfile(path)
    ours = dict(cfg.model.backbone, arch=vars(case.arch), init_cfg=None, drop_path_rate=0.0)
    ours['window_size'] = case.clipped_windows
    settings = dict(ours)
    if backbone == 'mmpretrain':
        settings = dict(
            mmpretrain_settings(case),
            type='mmpretrain.SwinTransformerV2',
            out_indices=(0, 1, 2, 3),
            pad_small_map=True,
        )
    else:
        settings |= dict(attention=backbone.attention, with_cp=backbone.with_cp)
    cfg.model.backbone = settings
    if cfg.model.data_preprocessor.get('size'):
        # Segmentors pad to the size that the recipe trains at.
        cfg.model.data_preprocessor.size = case.size_px
    torch.manual_seed(0)
    try:
        with MODELS.switch_scope_and_registry(cfg.default_scope) as registry:
            model = revert_sync_batchnorm(registry.build(cfg.model))
            model.init_weights()
    except (ImportError, KeyError) as error:
        raise CannotRun(f'not installed ({error})') from error
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        same = SwinTransformerV2(**{k: v for k, v in ours.items() if k not in ('type', 'init_cfg')})
    if backbone == 'mmpretrain':
        give_weights(model.backbone, layout=MMPRETRAIN, backbone=same)
    else:
        model.backbone.load_state_dict(same.state_dict())
    # The draws of two backbones differ in number, and so would the heads drawn after them.
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if not name.startswith('backbone.') and parameter.ndim > 1:
            nn.init.normal_(parameter, std=_HEAD_STD, generator=generator)
    model.to(device).train()
    batch = _batch(case, num_classes=_num_classes(model))
    optimizer = OptimWrapper(torch.optim.AdamW(model.parameters(), lr=_LEARNING_RATE))

    def forward() -> Tensor:
        data = model.data_preprocessor(batch, training=True)
        return model.parse_losses(model(**data, mode='loss'))[0]

    def step() -> Tensor:
        # Proposals are sampled at random: the same in every step.
        torch.manual_seed(0)
        with torch.enable_grad():
            loss = forward()
        with torch.autocast(device.type, enabled=False):
            optimizer.update_params(loss)
        return loss.detach()

    return model, step, forward


def _num_classes(model: nn.Module) -> int:
    if hasattr(model, 'decode_head'):
        return model.decode_head.num_classes
    return model.roi_head.bbox_head[0].num_classes


def _batch(case: Case, *, num_classes: int) -> dict:
    """Make images of noise, with objects on a grid or a class for every pixel."""
    generator = torch.Generator().manual_seed(0)
    height, width = case.size_px
    images = torch.randint(
        256, (case.batch, 3, height, width), generator=generator, dtype=torch.uint8
    )
    meta = dict(
        img_shape=case.size_px, ori_shape=case.size_px, pad_shape=case.size_px,
        batch_input_shape=case.size_px, scale_factor=(1.0, 1.0),
    )  # fmt: skip
    samples = [
        _detection(case, num_classes=num_classes, generator=generator)
        if case.task == 'cascade-mask-rcnn'
        else _segmentation(case, num_classes=num_classes, generator=generator)
        for _ in range(case.batch)
    ]
    for sample in samples:
        sample.set_metainfo(meta)
    return dict(inputs=list(images), data_samples=samples)


def _segmentation(case: Case, *, num_classes: int, generator: torch.Generator):  # noqa: ANN202
    from mmseg.structures import SegDataSample

    labels = torch.randint(num_classes, (1, *case.size_px), generator=generator)
    return SegDataSample(gt_sem_seg=PixelData(data=labels))


def _detection(case: Case, *, num_classes: int, generator: torch.Generator):  # noqa: ANN202
    from mmdet.structures import DetDataSample
    from mmdet.structures.bbox import HorizontalBoxes
    from mmdet.structures.mask import BitmapMasks

    height, width = case.size_px
    size = torch.tensor([width, height, width, height])
    corner = torch.rand(_NUM_OBJECTS, 2, generator=generator) * 0.6
    side = 0.1 + torch.rand(_NUM_OBJECTS, 2, generator=generator) * 0.3
    boxes = torch.cat((corner, corner + side), dim=1) * size
    masks = torch.zeros(_NUM_OBJECTS, height, width, dtype=torch.uint8)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.long().tolist(), strict=True):
        mask[y1:y2, x1:x2] = 1
    instances = InstanceData(
        bboxes=HorizontalBoxes(boxes),
        labels=torch.randint(num_classes, (_NUM_OBJECTS,), generator=generator),
        masks=BitmapMasks(masks.numpy(), height, width),
    )
    return DetDataSample(gt_instances=instances)
