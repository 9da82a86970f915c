# COCO in 36 epochs.
_base_ = 'coco-1x.py'
train_cfg = dict(max_epochs=36)
param_scheduler = [_base_.param_scheduler[0], dict(_base_.param_scheduler[1], end=36, milestones=[27, 33])]
