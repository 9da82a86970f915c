# COCO 2017, boxes only, augmented as DETR and its successors are (arXiv 2005.12872): as coco-instance-ms.py, but before the crop
# only the short side counts, and images without objects take part.
_base_ = 'coco-instance-ms.py'
# No image is that long.
before_crop = dict(_base_.before_crop, scales=[(400, 4200), (500, 4200), (600, 4200)])
train_pipeline = [
    *_base_.train_pipeline[:2],
    dict(type='LoadAnnotations', with_bbox=True),
    _base_.train_pipeline[3],
    dict(type='RandomChoice', transforms=[[_base_.any_scale], [before_crop, _base_.crop, _base_.any_scale]]),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    *_base_.test_pipeline[:2],
    dict(type='LoadAnnotations', with_bbox=True),
    *_base_.test_pipeline[3:],
]
train_dataloader = dict(dataset=dict(filter_cfg=dict(filter_empty_gt=False), pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(metric='bbox')
test_evaluator = val_evaluator
