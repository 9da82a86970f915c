# ImageNet-1K at 384 px. From this size on test images are resized without a crop (official TEST.CROP False).
_base_ = 'imagenet-256.py'
image_size_px = 384
train_pipeline = [dict(step, scale=image_size_px) if 'scale' in step else step for step in _base_.train_pipeline]
test_pipeline = [
    dict(type='LoadCheckedImage'),
    dict(type='Resize', scale=image_size_px, backend='pillow', interpolation='bicubic'),
    dict(type='PackInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
