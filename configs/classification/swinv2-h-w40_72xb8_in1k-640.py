# Trains: Swin-H V2, window 40, on ImageNet-1K at 640 px, from weights of your own.
# Command: GPUS=72 tools/slurm_train.sh PARTITION JOB configs/classification/swinv2-h-w40_72xb8_in1k-640.py --amp --cfg-options load_from=FILE
# Hardware: 72 GPUs, 8 images each; time and memory not measured.
# Score: not measured, none published at this size.
# Source: own choice: the paper's recipe for G; the paper has no such run. Released: SimMIM weights of H and what was fine-tuned from them at 224 px (docs/weights.md).
_base_ = ['../_base_/models/classifier.py', '../_base_/backbones/huge.py', '../_base_/datasets/imagenet-640.py',
          '../_base_/schedules/imagenet-10e.py', '../_base_/runtime/classification.py']
model = dict(
    backbone=dict(_base_.backbone, window_size=(40, 40, 40, 20), drop_path_rate=0.5, with_cp=True),
    head=dict(in_channels=_base_.channels_of_stage_3))
train_dataloader = dict(batch_size=8)
