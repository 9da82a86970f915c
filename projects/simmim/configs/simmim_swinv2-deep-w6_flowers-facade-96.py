# Trains: a narrow SwinV2 of the depth of H, by SimMIM: one side of the paper's figures 2 and 3 (its H is 11 times as wide).
# Command: python tools/train.py projects/simmim/configs/simmim_swinv2-deep-w6_flowers-facade-96.py
# Hardware: one CPU core, 3 minutes.
# Score: loss after 200 iterations 0.699 at a rate of 1e-3; 0.693 at 4e-3 (README.md)
# Source: depths and extra norms of SwinV2-H (paper section 3.6); the rest is an own recipe for small data.
_base_ = ['_base_/simmim.py', '_base_/flowers-facade-96.py', '_base_/stability-200.py', '_base_/runtime.py']
model = dict(
    backbone=dict(
        type='SwinV2', arch=dict(embed_dim=32, depths=(2, 2, 18, 2), num_heads=(1, 2, 4, 8), extra_norm_every=6),
        window_size=(6, 6, 6, 3), drop_path_rate=0.0),
    neck=dict(in_channels=256), head=dict(target_window_px=None))
train_dataloader = dict(batch_size=16, sampler=dict(type='SeededInfiniteSampler'))
custom_hooks = [dict(type='SignalHook', interval=25)]
val_cfg = val_dataloader = val_evaluator = None
