# Trains: Cascade Mask R-CNN with PVTv2-b2-li on COCO 2017 (36 epochs at many scales, every second image cropped).
# Command: tools/dist_train.sh projects/pvtv2/configs/detection/cascade-mask-rcnn_pvtv2-b2-li_fpn_ms-3x_coco.py 8 --amp
# Hardware: 8 GPUs, 2 images each; time not measured.
# Score: published 50.9 / 44.0 box / mask AP (authors' page); ours not measured.
# Source: detection/configs/cascade_mask_rcnn_pvt_v2_b2_li_fpn_3x_mstrain_fp16.py of github.com/whai362/PVT.
_base_ = 'cascade-mask-rcnn_pvtv2-b2_fpn_ms-3x_coco.py'
model = dict(backbone=dict(arch='b2-li', init_cfg=dict(checkpoint='https://github.com/whai362/PVT/releases/download/v2/pvt_v2_b2_li.pth')))
