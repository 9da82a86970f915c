# ImageNet-1K at 224 px as MindCV has it: test images keep 90 % of a side.
_base_ = '../../../../../configs/_base_/datasets/imagenet-224.py'
test_pipeline = [dict(step, scale=248) if 'scale' in step else step for step in _base_.test_pipeline]
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
