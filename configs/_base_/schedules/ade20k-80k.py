# UperNet G on ADE20K (paper appendix A2.2): batch 32, 80,000 steps, 750 of them warm-up.
_base_ = 'ade20k-160k.py'
train_cfg = dict(max_iters=80000, val_interval=8000)
param_scheduler = [dict(_base_.param_scheduler[0], end=750), dict(_base_.param_scheduler[1], begin=750, end=80000)]
default_hooks = dict(checkpoint=dict(interval=8000))
auto_scale_lr = dict(base_batch_size=32)
