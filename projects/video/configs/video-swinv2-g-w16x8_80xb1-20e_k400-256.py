# Trains: Video-SwinV2-G, windows 16x16x8, on Kinetics-400, 8 frames at 256 px (stage 1 of 2).
# Command: GPUS=80 tools/slurm_train.sh PARTITION JOB projects/video/configs/video-swinv2-g-w16x8_80xb1-20e_k400-256.py --amp
# Hardware: 80 GPUs with one clip each; time and memory not measured.
# Score: not measured, none published for this stage.
# Source: paper appendix (SwinV2-G, Kinetics-400); both ends of the rate and no clipping as in Video Swin's code. Not given there, chosen here: tubelets of 2 frames (Video Swin's), frames 8 apart, drop path.
_base_ = ['_base_/recognizer.py', '_base_/kinetics400-8frames.py', '../../../configs/_base_/schedules/adamw-epochs.py', '_base_/runtime.py']
model = dict(
    backbone=dict(
        arch='giant', window_size=16, temporal_window_size=8, drop_path_rate=0.4, with_cp=True,
        init_cfg=dict(type='Pretrained', checkpoint='work_dirs/swinv2-g-w12_144xb64_in21k-ext-192/iter_227864.pth')),
    num_classes=400, views_per_pass=1)
auto_scale_lr = dict(base_batch_size=80)
optim_wrapper = dict(clip_grad=None, optimizer=dict(lr=3.6e-4, weight_decay=0.1))
train_cfg = dict(max_epochs=20, val_interval=1)
param_scheduler = [
    dict(_base_.param_scheduler[0], start_factor=0.1, end=2.5),
    dict(_base_.param_scheduler[1], begin=2.5, end=20, T_max=17.5, eta_min_ratio=0.0)]
default_hooks = dict(checkpoint=dict(interval=1))
