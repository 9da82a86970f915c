# Trains: Plain DETR with SwinV2-S from SimMIM weights, window 16, last stage global, on COCO 2017 (12 epochs).
# Command: tools/dist_train.sh projects/plain_detr/configs/plain-detr_swinv2-s-w16_8xb2-12e_coco.py 8
# Hardware: 8 GPUs, 2 images each; time not measured.
# Score: published 50.9 box AP (paper, table 2); ours not measured.
# Source: configs/swinv2_small_mim_pt_boxrpe_reparam.sh of github.com/impiga/Plain-DETR. Not as there: two images a GPU, 80 logits
#     for 91, norms of neck and proposals do not decay.
_base_ = ['_base_/plain-detr.py', '../../../configs/_base_/backbones/small.py',
          '../../../configs/_base_/datasets/coco-detection-detr.py', '../../../configs/_base_/schedules/dino-12e.py',
          '../../../configs/_base_/runtime/detection.py']
custom_imports = dict(imports=['swinv2_mm.models', 'projects.plain_detr.plain_detr'])
model = dict(
    backbone=dict(
        _base_.backbone, window_size=(16, 16, 16, 1024), drop_path_rate=0.1,
        init_cfg=dict(type='Pretrained', checkpoint='swinv2-small-w12-192_simmim-in1k-500k')),
    neck=dict(in_channels=[_base_.channels_of_stage_3]))
optim_wrapper = dict(
    optimizer=dict(lr=2e-4, weight_decay=0.05), paramwise_cfg=dict(_delete_=True, layer_decay_rate=0.9))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=1000),
    *_base_.param_scheduler]
