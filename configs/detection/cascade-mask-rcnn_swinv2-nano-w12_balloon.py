# Trains: Cascade Mask R-CNN with a narrow SwinV2, from scratch, on balloons (1 class).
# Command: python tools/train.py configs/detection/cascade-mask-rcnn_swinv2-nano-w12_balloon.py
# Hardware: made for one CPU core; time not measured.
# Score: not measured on val; 8 training images are learnt by heart (docs/results.md).
# Source: own recipe for small data; the detector as in the paper's appendix A2.1 (ablation).
_base_ = ['../_base_/models/cascade-mask-rcnn-small.py', '../_base_/backbones/nano.py', '../_base_/datasets/balloon-instance.py',
          '../_base_/schedules/adamw-iterations.py', '../_base_/runtime/detection.py']
model = dict(
    backbone=dict(_base_.backbone, window_size=12), neck=dict(in_channels=_base_.channels),
    roi_head=dict(
        bbox_head=[dict(head, num_classes=_base_.num_classes) for head in _base_.model.roi_head.bbox_head],
        mask_head=dict(num_classes=_base_.num_classes)))
