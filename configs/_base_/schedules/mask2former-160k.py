# Mask2Former on ADE20K: 160,000 steps of 16 images, the rate falling as (1 - t)^0.9.
_base_ = 'mask2former-50e.py'
train_cfg = dict(max_iters=160000, val_interval=16000)
param_scheduler = [dict(type='PolyLR', by_epoch=False, begin=0, end=160000, power=0.9, eta_min=0.0)]
default_hooks = dict(checkpoint=dict(interval=16000))
