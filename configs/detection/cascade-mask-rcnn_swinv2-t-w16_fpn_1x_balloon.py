# Trains: Cascade Mask R-CNN with SwinV2-T, window 16, on balloons (1 class): the COCO recipe with another data set.
# Command: python tools/train.py configs/detection/cascade-mask-rcnn_swinv2-t-w16_fpn_1x_balloon.py
# Hardware: one GPU; time not measured.
# Score: not measured.
# Source: the COCO recipe; the shorter warm-up is an own choice.
_base_ = 'cascade-mask-rcnn_swinv2-t-w16_fpn_1x_coco.py'
root, metainfo = f'{_base_.data_root}/balloon', dict(classes=('balloon',))
model = dict(roi_head=dict(bbox_head=[dict(head, num_classes=1) for head in _base_.model.roi_head.bbox_head], mask_head=dict(num_classes=1)))
train_dataloader = dict(dataset=dict(data_root=root, metainfo=metainfo, ann_file='annotations/train.json', data_prefix=dict(img='train/')))
val_dataloader = test_dataloader = dict(dataset=dict(data_root=root, metainfo=metainfo, ann_file='annotations/val.json', data_prefix=dict(img='val/')))
val_evaluator = test_evaluator = dict(ann_file=f'{root}/annotations/val.json', classwise=True)
param_scheduler = [dict(_base_.param_scheduler[0], end=50), _base_.param_scheduler[1]]
