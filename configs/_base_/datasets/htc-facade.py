# Building facades through the pipeline of htc-coco.py, at 384 px: instances, label maps for the
# semantic branch (0, nearly always sky, is a class), InstaBoost, large-scale jitter.
_base_ = 'facade-instance.py'
num_semantic_classes = 11
train_pipeline = [
    dict(type='SeedAugmentation'),
    dict(type='LoadCheckedImage'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='LoadCheckedAnnotations', num_classes=num_semantic_classes),
    dict(type='CheckedInstaBoost'),
    dict(type='RandomResize', scale=_base_.image_size_px, ratio_range=(0.1, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=_base_.image_size_px, recompute_bbox=True, allow_negative_crop=True),
    dict(type='FilterAnnotations', min_gt_bbox_wh=(1, 1)),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs')]
train_dataloader = dict(dataset=dict(
    data_prefix=dict(img='images/training/', seg='annotations/training/'), pipeline=train_pipeline))
