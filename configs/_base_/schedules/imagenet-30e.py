# Fine-tuning on ImageNet-1K: 30 epochs (paper appendix A1), the first 5 warming up (official configs).
_base_ = 'imagenet-300e.py'
optim_wrapper = dict(optimizer=dict(lr=4e-5, weight_decay=1e-8))
train_cfg = dict(max_epochs=30)
param_scheduler = [dict(_base_.param_scheduler[0], end=5), dict(_base_.param_scheduler[1], begin=5, end=30, T_max=25)]
