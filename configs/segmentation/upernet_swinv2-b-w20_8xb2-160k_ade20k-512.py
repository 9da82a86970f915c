# Trains: UperNet with SwinV2-B, window 20, on ADE20K at 512 px (160,000 steps).
# Command: tools/dist_train.sh configs/segmentation/upernet_swinv2-b-w20_8xb2-160k_ade20k-512.py 8 --amp
# Hardware: 8 GPUs, 2 images each; time not measured.
# Score: nothing published for it; ours not measured.
# Source: paper appendix A2.2 (ablation), from the weights of window 8 as in table 1.
_base_ = ['../_base_/models/upernet.py', '../_base_/backbones/base.py', '../_base_/datasets/ade20k-512.py',
          '../_base_/schedules/ade20k-160k.py', '../_base_/runtime/segmentation.py']
model = dict(
    backbone=dict(
        _base_.backbone, window_size=20, drop_path_rate=0.3,
        init_cfg=dict(type='Pretrained', checkpoint='swinv2-base-w8-256_in1k')),
    decode_head=dict(in_channels=_base_.channels),
    auxiliary_head=dict(in_channels=_base_.channels_of_stage_2))
