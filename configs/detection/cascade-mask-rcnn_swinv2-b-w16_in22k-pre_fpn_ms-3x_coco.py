# Trains: Cascade Mask R-CNN with SwinV2-B, window 16, from ImageNet-22K weights, on COCO 2017 (36 epochs at many scales, every second image cropped).
# Command: tools/dist_train.sh configs/detection/cascade-mask-rcnn_swinv2-b-w16_in22k-pre_fpn_ms-3x_coco.py 8 --amp
# Hardware: 8 GPUs, 2 images each; time not measured.
# Score: published 53.0 / 45.8 box / mask AP (arXiv 2206.03382, dense baseline); ours not measured.
# Source: the ablation's recipe (cascade-mask-rcnn_swinv2-b-w16_fpn_ms-3x_coco.py) from other weights; that paper names no window.
_base_ = 'cascade-mask-rcnn_swinv2-b-w16_fpn_ms-3x_coco.py'
model = dict(backbone=dict(init_cfg=dict(checkpoint='swinv2-base-w12-192_in22k')))
