# UperNet B and L on ADE20K (paper appendix A2.2): batch 64, 40,000 steps, 375 of them warm-up.
_base_ = 'ade20k-160k.py'
optim_wrapper = dict(optimizer=dict(lr=6e-5))
train_cfg = dict(max_iters=40000, val_interval=4000)
param_scheduler = [dict(_base_.param_scheduler[0], end=375), dict(_base_.param_scheduler[1], begin=375, end=40000)]
default_hooks = dict(checkpoint=dict(interval=4000))
auto_scale_lr = dict(base_batch_size=64)
