# Trains: Swin-L V2, window 12, supervised on ImageNet-22K at 192 px.
# Command: GPUS=64 tools/slurm_train.sh PARTITION JOB configs/classification/swinv2-l-w12_64xb64_in21k-192.py --amp
# Hardware: 64 GPUs, 64 images each; time not measured.
# Score: not measured, none published: the weights are a start for fine-tuning.
# Source: paper appendix A1 and official config.
_base_ = ['../_base_/models/classifier-mixup.py', '../_base_/backbones/large.py', '../_base_/datasets/imagenet22k-192.py',
          '../_base_/schedules/imagenet22k-90e.py', '../_base_/runtime/classification.py']
# The last stage is 6 tokens wide: its bias is trained at that window.
model = dict(
    data_preprocessor=dict(num_classes=_base_.num_classes),
    backbone=dict(_base_.backbone, window_size=(12, 12, 12, 6), drop_path_rate=0.2),
    head=dict(in_channels=_base_.channels_of_stage_3, num_classes=_base_.num_classes))
