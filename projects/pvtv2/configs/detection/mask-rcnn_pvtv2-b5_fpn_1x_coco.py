# Trains: Mask R-CNN with PVTv2-b5 on COCO 2017 (12 epochs at one scale).
# Command: tools/dist_train.sh projects/pvtv2/configs/detection/mask-rcnn_pvtv2-b5_fpn_1x_coco.py 8 --amp
# Hardware: 8 GPUs, one image each; time not measured.
# Score: published 47.4 / 42.5 box / mask AP (authors' page); ours not measured.
# Source: detection/configs/mask_rcnn_pvt_v2_b5_fpn_1x_coco.py of github.com/whai362/PVT. Not as there: norms and biases do not decay.
_base_ = 'mask-rcnn_pvtv2-b2_fpn_1x_coco.py'
model = dict(backbone=dict(arch='b5', init_cfg=dict(checkpoint='https://github.com/whai362/PVT/releases/download/v2/pvt_v2_b5.pth')))
train_dataloader = dict(batch_size=1)
optim_wrapper = dict(optimizer=dict(lr=2e-4 / 1.4))
auto_scale_lr = dict(base_batch_size=8)
