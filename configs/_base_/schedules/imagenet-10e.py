# Fine-tuning SwinV2-G on ImageNet-1K: 10 epochs, the first 2 warming up, global batch 576 (paper appendix).
_base_ = 'imagenet-300e.py'
auto_scale_lr = dict(base_batch_size=576)
optim_wrapper = dict(clip_grad=dict(max_norm=100.0), optimizer=dict(lr=2.1e-5, weight_decay=0.1))
train_cfg = dict(max_epochs=10)
param_scheduler = [dict(_base_.param_scheduler[0], end=2), dict(_base_.param_scheduler[1], begin=2, end=10, T_max=8)]
