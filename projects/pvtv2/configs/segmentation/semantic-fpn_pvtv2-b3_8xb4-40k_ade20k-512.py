# Trains: Semantic FPN with PVTv2-b3 on ADE20K at 512 px (40,000 steps).
# Command: tools/dist_train.sh projects/pvtv2/configs/segmentation/semantic-fpn_pvtv2-b3_8xb4-40k_ade20k-512.py 8 --amp
# Hardware: 8 GPUs, 4 images each; time not measured.
# Score: not measured.
# Source: segmentation/ of github.com/whai362/PVT, which is for PVT v1. Not as there: norms and biases do not decay.
_base_ = 'semantic-fpn_pvtv2-b2_8xb4-40k_ade20k-512.py'
model = dict(backbone=dict(arch='b3', init_cfg=dict(checkpoint='https://github.com/whai362/PVT/releases/download/v2/pvt_v2_b3.pth')))
