# ImageNet-1K at 768 px.
_base_ = 'imagenet-384.py'
image_size_px = 768
train_pipeline = [dict(step, scale=image_size_px) if 'scale' in step else step for step in _base_.train_pipeline]
test_pipeline = [dict(step, scale=image_size_px) if 'scale' in step else step for step in _base_.test_pipeline]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
