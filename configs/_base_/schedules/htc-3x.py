# The 3x schedule counted in iterations of 64 images: 67,500, 4.32 million images as in the 270,000
# iterations of 16 of the original one, with its drops after 7/9 and 25/27. The warm-up is ours. No clipping, as in Swin's
# recipes for COCO.
_base_ = 'adamw-iterations.py'
optim_wrapper = dict(clip_grad=None, optimizer=dict(lr=4e-4), paramwise_cfg=dict(backbone_lr_mult=0.1))
train_cfg = dict(max_iters=67500, val_interval=7500)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=1000),
    dict(type='MultiStepLR', by_epoch=False, milestones=[52500, 62500], gamma=0.1)]
default_hooks = dict(checkpoint=dict(interval=7500))
auto_scale_lr = dict(base_batch_size=64)
