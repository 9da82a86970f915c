# DINO's schedule (arXiv 2203.03605): the backbone learns at a tenth of the rate, no warm-up.
_base_ = 'adamw-epochs.py'
optim_wrapper = dict(
    clip_grad=dict(max_norm=0.1), optimizer=dict(lr=1e-4, weight_decay=1e-4), paramwise_cfg=dict(backbone_lr_mult=0.1))
train_cfg = dict(max_epochs=12, val_interval=1)
param_scheduler = [dict(type='MultiStepLR', by_epoch=True, begin=0, end=12, milestones=[11], gamma=0.1)]
default_hooks = dict(logger=dict(interval=50), checkpoint=dict(interval=1))
auto_scale_lr = dict(base_batch_size=16)
