# ImageNet-1K at 256 px as MindCV has it: erased areas become the mean colour, test images keep 90 % of a side.
_base_ = 'imagenet-256.py'
erasing = dict(type='RandomErasing', erase_prob=0.25, mode='const', min_area_ratio=0.02, max_area_ratio=0.33, fill_color=_base_.mean_bgr)
train_pipeline = [erasing if step['type'] == 'RandomErasing' else step for step in _base_.train_pipeline]
test_pipeline = [dict(step, scale=284) if 'scale' in step else step for step in _base_.test_pipeline]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
