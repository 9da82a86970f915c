# Cascade Mask R-CNN with the box heads that Swin's published COCO results use: four convolutions and
# one linear layer, GIoU loss on decoded boxes.
_base_ = 'cascade-mask-rcnn.py'
model = dict(roi_head=dict(bbox_head=[
    dict(head, type='ConvFCBBoxHead', num_shared_convs=4, num_shared_fcs=1, conv_out_channels=256,
         norm_cfg=dict(type='SyncBN', requires_grad=True), reg_class_agnostic=False, reg_decoded_bbox=True,
         loss_bbox=dict(type='GIoULoss', loss_weight=10.0))
    for head in _base_.model.roi_head.bbox_head]))
