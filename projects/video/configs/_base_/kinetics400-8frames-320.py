# Kinetics-400 in clips of 8 frames at 320 px.
_base_ = 'kinetics400-8frames.py'
train_pipeline = [dict(step, size=320) if 'size' in step else step for step in _base_.train_pipeline]
test_pipeline = [_base_.test_pipeline[0], dict(_base_.test_pipeline[1], size=320), dict(_base_.test_pipeline[2], size_px=320), _base_.test_pipeline[3]]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
