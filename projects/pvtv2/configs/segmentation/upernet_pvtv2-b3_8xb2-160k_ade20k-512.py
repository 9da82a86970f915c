# Trains: UperNet with PVTv2-b3 on ADE20K at 512 px (160,000 steps).
# Command: tools/dist_train.sh projects/pvtv2/configs/segmentation/upernet_pvtv2-b3_8xb2-160k_ade20k-512.py 8 --amp
# Hardware: 8 GPUs, 2 images each; time not measured.
# Score: not measured.
# Source: the recipe of configs/segmentation/upernet_swinv2-t-w16_8xb2-160k_ade20k-512.py, layer decay included.
_base_ = 'upernet_pvtv2-b2_8xb2-160k_ade20k-512.py'
model = dict(backbone=dict(arch='b3', init_cfg=dict(checkpoint='https://github.com/whai362/PVT/releases/download/v2/pvt_v2_b3.pth')))
