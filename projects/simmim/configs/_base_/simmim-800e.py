# 800 epochs, the first 10 warming up, a tenth of the rate from epoch 700 on (official SimMIM config of SwinV2-B: 1e-4 per 512
# images, here for 2048).
_base_ = '../../../../configs/_base_/schedules/adamw-epochs.py'
auto_scale_lr = dict(base_batch_size=2048)
optim_wrapper = dict(optimizer=dict(lr=4e-4))
train_cfg = dict(max_epochs=800, val_interval=10)
param_scheduler = [
    dict(_base_.param_scheduler[0], start_factor=5e-3, end=10),
    dict(type='MultiStepLR', by_epoch=True, milestones=[700], gamma=0.1)]
default_hooks = dict(
    logger=dict(interval=100), checkpoint=dict(interval=5, max_keep_ckpts=3),
    visualization=dict(type='VisualizationHook', enable=True, interval=5000))
