# Mask2Former on COCO (arXiv 2112.01527): 368,750 steps of 16 images are 50 epochs; the backbone
# learns at a tenth of the rate.
_base_ = 'adamw-iterations.py'
optim_wrapper = dict(
    clip_grad=dict(max_norm=0.01), optimizer=dict(lr=1e-4), paramwise_cfg=dict(backbone_lr_mult=0.1))
train_cfg = dict(max_iters=368750, val_interval=14750)
param_scheduler = [dict(type='MultiStepLR', by_epoch=False, begin=0, end=368750, milestones=[327778, 355092], gamma=0.1)]
default_hooks = dict(checkpoint=dict(interval=14750))
auto_scale_lr = dict(base_batch_size=16)
