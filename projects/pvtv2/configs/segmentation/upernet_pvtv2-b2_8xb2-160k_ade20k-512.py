# Trains: UperNet with PVTv2-b2 on ADE20K at 512 px (160,000 steps).
# Command: tools/dist_train.sh projects/pvtv2/configs/segmentation/upernet_pvtv2-b2_8xb2-160k_ade20k-512.py 8 --amp
# Hardware: 8 GPUs, 2 images each; time not measured.
# Score: not measured.
# Source: the recipe of configs/segmentation/upernet_swinv2-t-w16_8xb2-160k_ade20k-512.py, layer decay included.
_base_ = ['../../../../configs/_base_/models/upernet.py', '../../../../configs/_base_/datasets/ade20k-512.py', '../../../../configs/_base_/schedules/ade20k-160k.py',
          '../../../../configs/_base_/runtime/segmentation.py', '../_base_/backbone.py']
custom_imports = dict(imports=['swinv2_mm.models', 'projects.pvtv2.pvtv2'])
model = dict(
    backbone=dict(_base_.backbone, drop_path_rate=0.1, init_cfg=dict(type='Pretrained', checkpoint='https://github.com/whai362/PVT/releases/download/v2/pvt_v2_b2.pth')),
    decode_head=dict(in_channels=_base_.channels),
    auxiliary_head=dict(in_channels=_base_.channels[2]))
