# 30 epochs, 2.5 of them warming up from a tenth, cosine to 0, no clipping; the backbone learns at a tenth of the head's rate (Video
# Swin, arXiv 2106.13230 and its code).
_base_ = '../../../../configs/_base_/schedules/adamw-epochs.py'
auto_scale_lr = dict(base_batch_size=64)
optim_wrapper = dict(clip_grad=None, optimizer=dict(lr=3e-4, weight_decay=0.02), paramwise_cfg=dict(backbone_lr_mult=0.1))
train_cfg = dict(max_epochs=30, val_interval=1)
param_scheduler = [
    dict(_base_.param_scheduler[0], start_factor=0.1, end=2.5),
    dict(_base_.param_scheduler[1], begin=2.5, end=30, T_max=27.5, eta_min_ratio=0.0)]
default_hooks = dict(logger=dict(interval=100), checkpoint=dict(interval=1, max_keep_ckpts=3))
