# Trains: Semantic FPN with PVTv2-b2 on ADE20K at 512 px (40,000 steps).
# Command: tools/dist_train.sh projects/pvtv2/configs/segmentation/semantic-fpn_pvtv2-b2_8xb4-40k_ade20k-512.py 8 --amp
# Hardware: 8 GPUs, 4 images each; time not measured.
# Score: not measured.
# Source: segmentation/ of github.com/whai362/PVT, which is for PVT v1. Not as there: norms and biases do not decay.
_base_ = ['../_base_/models/semantic-fpn.py', '../../../../configs/_base_/datasets/ade20k-512.py', '../_base_/schedules/ade20k-40k.py',
          '../../../../configs/_base_/runtime/segmentation.py', '../_base_/backbone.py']
custom_imports = dict(imports=['swinv2_mm.models', 'projects.pvtv2.pvtv2'])
model = dict(
    backbone=dict(_base_.backbone, drop_path_rate=0.1, init_cfg=dict(type='Pretrained', checkpoint='https://github.com/whai362/PVT/releases/download/v2/pvt_v2_b2.pth')),
    neck=dict(in_channels=_base_.channels))
# Test images are enlarged to multiples of 32 px.
test_pipeline = [*_base_.test_pipeline[:2], dict(type='ResizeToMultiple', size_divisor=32), *_base_.test_pipeline[2:]]
train_dataloader = dict(batch_size=4)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
