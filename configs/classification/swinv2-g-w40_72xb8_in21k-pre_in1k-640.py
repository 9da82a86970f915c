# Trains: Swin-G V2, window 40, on ImageNet-1K at 640 px, from the weights of its ImageNet-22K recipe.
# Command: GPUS=72 tools/slurm_train.sh PARTITION JOB configs/classification/swinv2-g-w40_72xb8_in21k-pre_in1k-640.py --amp
# Hardware: 72 GPUs, 8 images each; time and memory not measured (paper: 40 GB cards, optimiser state sharded).
# Score: not measured here; published 90.17 top-1, and 84.00 on ImageNet-V2 (paper)
# Source: paper appendix (SwinV2-G); RandAugment and erasing, no Mixup or CutMix.
_base_ = ['../_base_/models/classifier.py', '../_base_/backbones/giant.py', '../_base_/datasets/imagenet-640.py',
          '../_base_/schedules/imagenet-10e.py', '../_base_/runtime/classification.py']
model = dict(
    backbone=dict(_base_.backbone, window_size=(40, 40, 40, 20), drop_path_rate=0.5, with_cp=True),
    head=dict(in_channels=_base_.channels_of_stage_3))
train_dataloader = dict(batch_size=8)
load_from = 'work_dirs/swinv2-g-w12_144xb64_in21k-ext-192/iter_227864.pth'
fresh_parameters = ['head']  # 21841 classes before, 1000 now
# Or, in place of fresh_parameters, the file that `swinv2-mm checkpoint class-map` writes from the two data sets' folders.
head_class_map = None
