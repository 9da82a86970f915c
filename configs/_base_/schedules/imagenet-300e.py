# From scratch on ImageNet-1K: 300 epochs, the first 20 warming up from lr/1000, cosine to lr/100 (paper appendix A1; both
# ends of the curve from the official configs). The recipe has no EMA.
_base_ = 'adamw-epochs.py'
auto_scale_lr = dict(base_batch_size=1024)
train_cfg = dict(max_epochs=300, val_interval=1)
param_scheduler = [
    dict(_base_.param_scheduler[0], start_factor=1e-3, end=20),
    dict(_base_.param_scheduler[1], begin=20, end=300, T_max=280)]
default_hooks = dict(logger=dict(interval=100), checkpoint=dict(interval=1, max_keep_ckpts=3))
