# Trains: Semantic FPN with PVTv2-b2-li on ADE20K at 512 px (40,000 steps).
# Command: tools/dist_train.sh projects/pvtv2/configs/segmentation/semantic-fpn_pvtv2-b2-li_8xb2-40k_ade20k-512.py 8 --amp
# Hardware: 8 GPUs, 2 images each; time not measured.
# Score: not measured.
# Source: PVTv2's published recipe.
_base_ = 'semantic-fpn_pvtv2-b2_8xb2-40k_ade20k-512.py'
model = dict(backbone=dict(arch='b2-li', init_cfg=dict(checkpoint='https://github.com/whai362/PVT/releases/download/v2/pvt_v2_b2_li.pth')))
