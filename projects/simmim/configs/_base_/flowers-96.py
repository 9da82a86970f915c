# Five kinds of flowers at 96 px, with labels.
_base_ = '../../../../configs/_base_/datasets/flowers.py'
sizes_px = {128: 96, 128 * 8 // 7: 96 * 8 // 7}
train_pipeline = [{k: sizes_px.get(v, v) if type(v) is int else v for k, v in step.items()} for step in _base_.train_pipeline]
test_pipeline = [{k: sizes_px.get(v, v) if type(v) is int else v for k, v in step.items()} for step in _base_.test_pipeline]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
