# UperNet T, S and B on ADE20K (paper appendix A2.2): batch 16, 160,000 steps, 1,500 of them warm-up,
# then falling linearly; each layer learns 0.95 times as fast as the next deeper one.
_base_ = 'adamw-iterations.py'
optim_wrapper = dict(clip_grad=None, optimizer=dict(lr=4e-5), paramwise_cfg=dict(layer_decay_rate=0.95))
train_cfg = dict(max_iters=160000, val_interval=16000)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=1500),
    dict(type='PolyLR', by_epoch=False, begin=1500, end=160000, power=1.0, eta_min=0.0)]
default_hooks = dict(checkpoint=dict(interval=16000))
auto_scale_lr = dict(base_batch_size=16)
