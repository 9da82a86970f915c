# ADE20K with crops of 640 px, tested at a short side of 640.
_base_ = 'ade20k-512.py'
crop_size_px = (640, 640)
train_pipeline = [
    *_base_.train_pipeline[:3],
    dict(_base_.train_pipeline[3], scale=(2560, 640)),
    dict(_base_.train_pipeline[4], crop_size=crop_size_px),
    *_base_.train_pipeline[5:],
]
test_pipeline = [_base_.test_pipeline[0], dict(_base_.test_pipeline[1], scale=(2560, 640)), *_base_.test_pipeline[2:]]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
