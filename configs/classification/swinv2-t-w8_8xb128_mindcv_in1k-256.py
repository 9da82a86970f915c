# Trains: Swin-T V2, window 8, from scratch on ImageNet-1K at 256 px, by the recipe of MindCV (450 epochs).
# Command: tools/dist_train.sh configs/classification/swinv2-t-w8_8xb128_mindcv_in1k-256.py 8 --amp
# Hardware: 8 GPUs, 128 images each; time not measured.
# Score: not measured here; published 81.38 to 81.42 top-1, 95.43 to 95.46 top-5 (MindCV model pages)
# Source: MindCV, configs/swintransformerv2/swinv2_tiny_window8_ascend.yaml. Not as there: norms and biases do not decay.
_base_ = ['../_base_/models/classifier-mixup.py', '../_base_/backbones/tiny.py', '../_base_/datasets/imagenet-256-mindcv.py',
          '../_base_/schedules/imagenet-mindcv.py', '../_base_/runtime/classification.py']
model = dict(
    backbone=dict(_base_.backbone, window_size=8, drop_path_rate=0.2, numerics='mindspore'), head=dict(in_channels=_base_.channels_of_stage_3))
train_dataloader = dict(batch_size=128)
