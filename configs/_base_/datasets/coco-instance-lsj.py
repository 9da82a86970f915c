# COCO 2017 with large-scale jitter: resized by 0.1 to 2, then a 1024 px crop or less (arXiv 2012.07177).
_base_ = 'coco-instance.py'
train_pipeline = [
    dict(type='SeedAugmentation'),
    dict(type='LoadCheckedImage'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='RandomResize', scale=(1024, 1024), ratio_range=(0.1, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=(1024, 1024), crop_type='absolute', recompute_bbox=True, allow_negative_crop=True),
    # What the crop left nothing of.
    dict(type='FilterAnnotations', min_gt_bbox_wh=(1e-5, 1e-5), by_mask=True),
    dict(type='PackDetInputs'),
]
train_dataloader = dict(
    sampler=dict(type='SeededInfiniteSampler'), dataset=dict(pipeline=train_pipeline))
