# Trains: a classifier with a narrow SwinV2, from scratch, on five kinds of flowers.
# Command: python tools/train.py configs/classification/swinv2-nano-w8_flowers.py
# Hardware: one CPU core, 20 minutes.
# Score: top-1 68.7 % (docs/results.md)
# Source: own recipe for small data; AdamW, warm-up and cosine as in the paper's appendix A1.
_base_ = ['../_base_/models/classifier.py', '../_base_/backbones/nano.py', '../_base_/datasets/flowers.py',
          '../_base_/schedules/adamw-epochs.py', '../_base_/runtime/classification.py']
model = dict(
    data_preprocessor=dict(num_classes=_base_.num_classes), backbone=dict(_base_.backbone, window_size=8, drop_path_rate=0.05),
    head=dict(in_channels=_base_.channels_of_stage_3, num_classes=_base_.num_classes))
auto_scale_lr = dict(base_batch_size=16)
