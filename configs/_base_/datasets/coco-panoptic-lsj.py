# COCO 2017 panoptic, 80 things and 53 stuff classes, with large-scale jitter. Also measured as
# instances, so annotations/instances_val2017.json is needed beside panoptic_val2017.
_base_ = 'coco-instance-lsj.py'
dataset_type = 'CocoPanopticDataset'
train_pipeline = [
    *_base_.train_pipeline[:2],
    dict(type='LoadPanopticAnnotations', with_bbox=True, with_mask=True, with_seg=True),
    *_base_.train_pipeline[3:6],
    dict(type='PackDetInputs'),
]
test_pipeline = [
    *_base_.test_pipeline[:2],
    dict(type='LoadPanopticAnnotations'),
    *_base_.test_pipeline[3:],
]
train_dataloader = dict(dataset=dict(
    type=dataset_type, ann_file='annotations/panoptic_train2017.json', data_prefix=dict(seg='annotations/panoptic_train2017/'),
    pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(
    type=dataset_type, ann_file='annotations/panoptic_val2017.json', data_prefix=dict(seg='annotations/panoptic_val2017/'),
    pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = [
    dict(type='CocoPanopticMetric', ann_file=f'{_base_.root}/annotations/panoptic_val2017.json',
         seg_prefix=f'{_base_.root}/annotations/panoptic_val2017/'),
    _base_.val_evaluator]
test_evaluator = val_evaluator
