# DINO in 36 epochs.
_base_ = 'dino-12e.py'
train_cfg = dict(max_epochs=36)
param_scheduler = [dict(_base_.param_scheduler[0], end=36, milestones=[30])]
