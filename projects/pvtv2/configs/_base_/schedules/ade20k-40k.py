# Semantic FPN on ADE20K as in the code of PVT v1 (PVTv2's has no segmentation): 40,000 steps of 32 images, no warm-up, the rate
# falling as (1 - t)^0.9.
_base_ = '../../../../../configs/_base_/schedules/adamw-iterations.py'
optim_wrapper = dict(clip_grad=None, optimizer=dict(lr=2e-4, weight_decay=1e-4))
train_cfg = dict(max_iters=40000, val_interval=4000)
param_scheduler = [dict(type='PolyLR', by_epoch=False, begin=0, end=40000, power=0.9, eta_min=0.0)]
default_hooks = dict(checkpoint=dict(interval=4000))
auto_scale_lr = dict(base_batch_size=32)
