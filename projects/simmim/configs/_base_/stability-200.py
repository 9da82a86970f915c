# 200 iterations at a rate that is warmed up and then stays: what grows is not held back by a schedule.
_base_ = '../../../../configs/_base_/schedules/adamw-iterations.py'
train_cfg = dict(max_iters=200)
param_scheduler = [dict(_base_.param_scheduler[0], end=25)]
default_hooks = dict(logger=dict(interval=2), checkpoint=dict(interval=200))
log_processor = dict(window_size=10)
