# Kinetics-400 in clips of 8 frames at 256, 320 or 384 px (the leaf derives its pipelines from these).
# The paper does not say how far apart the frames are: 8, so that a clip spans as much as Video Swin's 32 frames out of 64.
_base_ = 'kinetics400.py'
clip = dict(clip_len=8, interval=8)
train_pipeline = [dict(step, **clip) if 'clip_len' in step else step for step in _base_.train_pipeline]
# One view, as validation.
test_pipeline = [dict(step, **clip) if 'clip_len' in step else step for step in _base_.val_pipeline]
train_dataloader = dict(batch_size=1, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(batch_size=1, dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
