# Trains: Mask2Former with SwinV2-L, window 16, on ADE20K at 640 px (160,000 steps).
# Command: tools/dist_train.sh configs/segmentation/mask2former_swinv2-l-w16_8xb2-160k_ade20k-640.py 8 --amp
# Hardware: 8 GPUs, 2 images each; time not measured.
# Score: nothing published for SwinV2; ours not measured.
# Source: Mask2Former (arXiv 2112.01527) as in MMSegmentation; window, weights and scale jitter (UperNet's) own choice.
_base_ = ['../_base_/models/mask2former-semantic.py', '../_base_/backbones/large.py', '../_base_/datasets/ade20k-640.py',
          '../_base_/schedules/mask2former-160k.py', '../_base_/runtime/segmentation.py']
model = dict(
    data_preprocessor=dict(size=_base_.crop_size_px),
    backbone=dict(
        _base_.backbone, window_size=16, drop_path_rate=0.3,
        init_cfg=dict(type='Pretrained', checkpoint='swinv2-large-w16-256_in22k-ft-in1k')),
    decode_head=dict(in_channels=_base_.channels))
