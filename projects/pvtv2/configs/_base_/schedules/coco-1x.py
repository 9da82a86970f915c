# COCO in 12 epochs as PVT's code has it: warm-up of 500 steps, decay 1e-4, no clipping.
_base_ = '../../../../../configs/_base_/schedules/coco-1x.py'
optim_wrapper = dict(optimizer=dict(weight_decay=1e-4))
param_scheduler = [dict(_base_.param_scheduler[0], end=500), _base_.param_scheduler[1]]
