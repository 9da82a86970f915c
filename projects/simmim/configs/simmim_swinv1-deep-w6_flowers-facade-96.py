# Trains: the same with blocks of Swin V1 (norm before attention and MLP, dot products, a table of biases): the other side.
# Command: python tools/train.py projects/simmim/configs/simmim_swinv1-deep-w6_flowers-facade-96.py
# Hardware: one CPU core, 3 minutes.
# Score: loss after 200 iterations 0.715 at a rate of 1e-3; at 4e-3 it collapses (0.998) (README.md)
# Source: mmpretrain's SimMIM for Swin V1; depths of H; the rest as in simmim_swinv2-deep-w6_flowers-facade-96.py.
_base_ = ['_base_/simmim.py', '_base_/flowers-facade-96.py', '_base_/stability-200.py', '_base_/runtime.py']
windows = [dict(block_cfgs=dict(window_size=side)) for side in (6, 6, 6, 3)]
model = dict(
    type='SimMIM',
    backbone=dict(
        type='SimMIMSwinTransformer', arch=dict(embed_dims=32, depths=(2, 2, 18, 2), num_heads=(1, 2, 4, 8)),
        img_size=96, stage_cfgs=windows, drop_path_rate=0.0),
    neck=dict(in_channels=256), head=dict(target_window_px=None))
train_dataloader = dict(batch_size=16, sampler=dict(type='SeededInfiniteSampler'))
custom_hooks = [dict(type='SwinV1SignalHook', interval=25)]
val_cfg = val_dataloader = val_evaluator = None
# What it has learnt is not tested: mmpretrain's SimMIM cannot predict.
test_cfg = test_dataloader = test_evaluator = None
