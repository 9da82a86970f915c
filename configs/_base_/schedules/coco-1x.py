# COCO in 12 epochs, 16 images a step (rate and decay: paper appendix A2.1; warm-up and steps: as in
# MMDetection's Swin recipes). No clipping.
_base_ = 'adamw-epochs.py'
optim_wrapper = dict(clip_grad=None, optimizer=dict(lr=1e-4))
train_cfg = dict(max_epochs=12, val_interval=1)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=1000),
    dict(type='MultiStepLR', by_epoch=True, begin=0, end=12, milestones=[8, 11], gamma=0.1)]
default_hooks = dict(logger=dict(interval=50), checkpoint=dict(interval=1))
auto_scale_lr = dict(base_batch_size=16)
