# Supervised on ImageNet-22K: 90 epochs, the first 5 warming up, global batch 4096 (paper appendix A1). No validation set.
_base_ = 'imagenet-300e.py'
auto_scale_lr = dict(base_batch_size=4096)
optim_wrapper = dict(optimizer=dict(weight_decay=0.1))
train_cfg = dict(max_epochs=90)
val_cfg = None
param_scheduler = [dict(_base_.param_scheduler[0], end=5), dict(_base_.param_scheduler[1], begin=5, end=90, T_max=85)]
