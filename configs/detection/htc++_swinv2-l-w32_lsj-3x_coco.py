# Trains: HTC++ with SwinV2-L, window 32, on COCO (boxes and masks).
# Command: GPUS=64 tools/slurm_train.sh PARTITION JOB configs/detection/htc++_swinv2-l-w32_lsj-3x_coco.py
# Hardware: 64 GPUs with one image each; fewer with --auto-scale-lr; time not measured.
# Score: published 58.8 / 51.1 box / mask AP on minival (paper, window 32, 1100 px); window 48 1100 px 58.9 / 51.2, multi-scale 60.2 / 52.1, test-dev 60.8 / 52.7; not measured here
# Source: arXiv 2111.09883, appendix A2 (it names no drop path: ours); 3x and its drops as in detectron2. Window 48: tools/test.py ... --window-size 48.
_base_ = ['../_base_/models/htc++.py', '../_base_/backbones/large.py', '../_base_/datasets/htc-coco.py',
          '../_base_/schedules/htc-3x.py', '../_base_/runtime/detection.py']
custom_imports = dict(imports=['swinv2_mm.models', 'projects.htc_plus_plus'])  # InstaBoost
model = dict(backbone=dict(_base_.backbone, window_size=32, drop_path_rate=0.2, with_cp=True), neck=dict(in_channels=_base_.channels))
load_from = 'swinv2-large-w12-192_in22k'
# What a box stage (work_dirs/htc++-box_.../iter_67500.pth as load_from) lacks or has for other classes; released weights need no such list.
fresh_parameters = ['roi_head.mask_head', 'roi_head.semantic_head', 'roi_head.bbox_head.*.fc_cls']
