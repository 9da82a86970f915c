# ImageNet-1K at 224 px, tested by resizing to 256 and a centre crop.
_base_ = 'imagenet-256.py'
image_size_px = 224
train_pipeline = [dict(step, scale=image_size_px) if 'scale' in step else step for step in _base_.train_pipeline]
sizes_px = dict(scale=256, crop_size=224)
test_pipeline = [{k: sizes_px.get(k, v) for k, v in step.items()} for step in _base_.test_pipeline]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
