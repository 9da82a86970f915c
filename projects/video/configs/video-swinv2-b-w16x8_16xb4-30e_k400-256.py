# Trains: Video-SwinV2-B, windows 16x16x8, on Kinetics-400, 32 frames at 256 px, from weights of ImageNet-22K.
# Command: GPUS=16 tools/slurm_train.sh PARTITION JOB projects/video/configs/video-swinv2-b-w16x8_16xb4-30e_k400-256.py --amp
# Hardware: 16 GPUs, 4 clips each; time and memory not measured.
# Score: not measured, none published.
# Source: the recipe of Video Swin-B (arXiv 2106.13230, section 4.1; its code has drop path 0.2), at the windows that SwinV2-G has there (paper appendix A2).
_base_ = ['_base_/recognizer.py', '_base_/kinetics400.py', '_base_/video-swin-30e.py', '_base_/runtime.py']
model = dict(
    backbone=dict(
        arch='base', window_size=16, temporal_window_size=8, drop_path_rate=0.3, with_cp=True,
        init_cfg=dict(type='Pretrained', checkpoint='swinv2-base-w12-192_in22k')),
    num_classes=400, dropout_rate=0.5, views_per_pass=4)
train_dataloader = dict(batch_size=4)
optim_wrapper = dict(optimizer=dict(weight_decay=0.05))
