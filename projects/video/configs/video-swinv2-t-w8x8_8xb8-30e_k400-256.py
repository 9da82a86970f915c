# Trains: Video-SwinV2-T, windows 8x8x8, on Kinetics-400, 32 frames at 256 px, from weights of ImageNet-1K.
# Command: tools/dist_train.sh projects/video/configs/video-swinv2-t-w8x8_8xb8-30e_k400-256.py 8 --amp
# Hardware: 8 GPUs, 8 clips each; time and memory not measured.
# Score: not measured, none published.
# Source: the recipe of Video Swin-T (arXiv 2106.13230, section 4.1; its code has 1e-3 for 256 clips).
_base_ = ['_base_/recognizer.py', '_base_/kinetics400.py', '_base_/video-swin-30e.py', '_base_/runtime.py']
model = dict(
    backbone=dict(
        arch='tiny', window_size=8, temporal_window_size=8, drop_path_rate=0.1,
        init_cfg=dict(type='Pretrained', checkpoint='swinv2-tiny-w8-256_in1k')),
    num_classes=400, dropout_rate=0.5)
