# Trains: HTC++ with SwinV2-G, window 32, on COCO, after the Objects365 stage.
# Command: GPUS=96 tools/slurm_train.sh PARTITION JOB configs/detection/htc++_swinv2-g-w32_lsj-45k_coco.py
# Hardware: 96 GPUs with one image each (the paper: 40 GB cards); time not measured.
# Score: published 61.7 / 53.3 box / mask AP on minival (paper, window 32, 1100 px); window 48 1100 px 61.9 / 53.4, multi-scale 62.5 / 53.7, test-dev 63.1 / 54.4; not measured here
# Source: arXiv 2111.09883, appendix A2 (it names no drop path: ours); where the rate drops is that of htc-3x.py. Window 48: tools/test.py ... --window-size 48.
_base_ = ['../_base_/models/htc++.py', '../_base_/backbones/giant.py', '../_base_/datasets/htc-coco.py',
          '../_base_/schedules/htc-3x.py', '../_base_/runtime/detection.py']
custom_imports = dict(imports=['swinv2_mm.models', 'projects.htc_plus_plus'])  # InstaBoost
model = dict(backbone=dict(_base_.backbone, window_size=32, drop_path_rate=0.2, with_cp=True), neck=dict(in_channels=_base_.channels))
optim_wrapper = dict(optimizer=dict(lr=6e-4))
train_cfg = dict(max_iters=45000, val_interval=5000)
param_scheduler = [_base_.param_scheduler[0], dict(_base_.param_scheduler[1], milestones=[35000, 41667])]
default_hooks = dict(checkpoint=dict(interval=5000))
auto_scale_lr = dict(base_batch_size=96)
load_from = 'work_dirs/htc++-box_swinv2-g-w32_ms-67k_objects365/iter_67500.pth'
# What a box stage lacks or has for other classes.
fresh_parameters = ['roi_head.mask_head', 'roi_head.semantic_head', 'roi_head.bbox_head.*.fc_cls']
