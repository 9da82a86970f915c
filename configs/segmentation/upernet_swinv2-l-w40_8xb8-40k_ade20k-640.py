# Trains: UperNet with SwinV2-L, window 40, on ADE20K at 640 px (40,000 steps).
# Command: tools/dist_train.sh configs/segmentation/upernet_swinv2-l-w40_8xb8-40k_ade20k-640.py 8 --amp
# Hardware: 8 GPUs, 8 images each; time not measured.
# Score: published 55.9 mIoU tested at many scales (paper, comparison on ADE20K); ours not measured.
# Source: paper appendix A2.2, from the ImageNet-22K weights; layer decay 0.95 as in the ablation, own choice.
_base_ = ['../_base_/models/upernet.py', '../_base_/backbones/large.py', '../_base_/datasets/ade20k-640.py',
          '../_base_/schedules/ade20k-40k.py', '../_base_/runtime/segmentation.py']
model = dict(
    data_preprocessor=dict(size=_base_.crop_size_px),
    backbone=dict(
        _base_.backbone, window_size=40, drop_path_rate=0.3, with_cp=True,
        init_cfg=dict(type='Pretrained', checkpoint='swinv2-large-w12-192_in22k')),
    decode_head=dict(in_channels=_base_.channels),
    auxiliary_head=dict(in_channels=_base_.channels_of_stage_2))
train_dataloader = dict(batch_size=8)
