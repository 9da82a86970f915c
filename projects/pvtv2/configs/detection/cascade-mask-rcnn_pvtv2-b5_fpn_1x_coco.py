# Trains: Cascade Mask R-CNN with PVTv2-b5 on COCO 2017 (12 epochs at one scale).
# Command: tools/dist_train.sh projects/pvtv2/configs/detection/cascade-mask-rcnn_pvtv2-b5_fpn_1x_coco.py 8 --amp
# Hardware: 8 GPUs, 2 images each; time not measured.
# Score: not measured.
# Source: the recipe of configs/detection/cascade-mask-rcnn_swinv2-t-w16_fpn_1x_coco.py.
_base_ = 'cascade-mask-rcnn_pvtv2-b2_fpn_1x_coco.py'
model = dict(backbone=dict(arch='b5', drop_path_rate=0.3, init_cfg=dict(checkpoint='https://github.com/whai362/PVT/releases/download/v2/pvt_v2_b5.pth')))
