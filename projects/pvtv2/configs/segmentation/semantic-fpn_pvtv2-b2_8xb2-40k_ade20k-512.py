# Trains: Semantic FPN with PVTv2-b2 on ADE20K at 512 px (40,000 steps).
# Command: tools/dist_train.sh projects/pvtv2/configs/segmentation/semantic-fpn_pvtv2-b2_8xb2-40k_ade20k-512.py 8 --amp
# Hardware: 8 GPUs, 2 images each; time not measured.
# Score: not measured.
# Source: PVTv2's published recipe.
_base_ = ['../_base_/models/semantic-fpn.py', '../../../../configs/_base_/datasets/ade20k-512.py', '../_base_/schedules/ade20k-40k.py',
          '../../../../configs/_base_/runtime/segmentation.py', '../_base_/backbone.py']
custom_imports = dict(imports=['swinv2_mm.models', 'projects.pvtv2.pvtv2'])
model = dict(
    backbone=dict(_base_.backbone, drop_path_rate=0.1, init_cfg=dict(type='Pretrained', checkpoint='https://github.com/whai362/PVT/releases/download/v2/pvt_v2_b2.pth')),
    neck=dict(in_channels=_base_.channels))
