# Trains: HTC++ with SwinV2-B, window 32, without mask and semantic branch, on Objects365 v2.
# Command: GPUS=96 tools/slurm_train.sh PARTITION JOB configs/detection/htc++-box_swinv2-b-w32_ms-67k_objects365.py
# Hardware: 96 GPUs with one image each; fewer with --auto-scale-lr; time not measured.
# Score: not measured
# Source: arXiv 2111.09883, appendix A2 (it names no drop path: ours), where it is G's recipe; the paper's B has no such stage. Where the rate drops is that of htc-3x.py.
_base_ = ['../_base_/models/htc++-box.py', '../_base_/backbones/base.py', '../_base_/datasets/objects365.py',
          '../_base_/schedules/htc-3x.py', '../_base_/runtime/detection.py']
model = dict(
    backbone=dict(_base_.backbone, window_size=32, drop_path_rate=0.2, with_cp=True), neck=dict(in_channels=_base_.channels),
    roi_head=dict(bbox_head=[dict(head, num_classes=_base_.num_classes) for head in _base_.model.roi_head.bbox_head]))
optim_wrapper = dict(optimizer=dict(lr=1.2e-3))
auto_scale_lr = dict(base_batch_size=96)
load_from = 'swinv2-base-w12-192_in22k'
