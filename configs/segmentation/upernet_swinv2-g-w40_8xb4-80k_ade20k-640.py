# Trains: UperNet with SwinV2-G, window 40, on ADE20K at 640 px (80,000 steps). Its weights were never released.
# Command: tools/dist_train.sh configs/segmentation/upernet_swinv2-g-w40_8xb4-80k_ade20k-640.py 8 --amp
# Hardware: 8 GPUs, 4 images each; time and memory not measured.
# Score: published 59.1 mIoU (paper, comparison on ADE20K); ours not measured.
# Source: paper appendix A2.2; layer decay 0.95 as in the ablation, own choice (the paper names none for G).
_base_ = ['../_base_/models/upernet.py', '../_base_/backbones/giant.py', '../_base_/datasets/ade20k-640.py',
          '../_base_/schedules/ade20k-80k.py', '../_base_/runtime/segmentation.py']
model = dict(
    data_preprocessor=dict(size=_base_.crop_size_px),
    backbone=dict(_base_.backbone, window_size=40, drop_path_rate=0.4, with_cp=True),
    decode_head=dict(in_channels=_base_.channels),
    auxiliary_head=dict(in_channels=_base_.channels_of_stage_2))
train_dataloader = dict(batch_size=4)
