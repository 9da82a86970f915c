# Trains: PVTv2-b2 from scratch on ImageNet-1K at 224 px, by the recipe of MindCV (550 epochs).
# Command: tools/dist_train.sh projects/pvtv2/configs/classification/pvtv2-b2_8xb128_mindcv_in1k-224.py 8 --amp
# Hardware: 8 GPUs, 128 images each; time not measured.
# Score: not measured here; published 81.99 top-1, 95.74 top-5 (MindCV model page).
# Source: MindCV, configs/pvtv2/pvt_v2_b2_ascend.yaml. Not as there: norms and biases do not decay.
_base_ = ['../../../../configs/_base_/models/classifier-mixup.py', '../_base_/datasets/imagenet-224-mindcv.py',
          '../../../../configs/_base_/schedules/imagenet-mindcv.py', '../../../../configs/_base_/runtime/classification.py', '../_base_/backbone.py']
custom_imports = dict(imports=['swinv2_mm.models', 'projects.pvtv2.pvtv2'])
model = dict(backbone=dict(_base_.backbone, drop_path_rate=0.2, numerics='mindspore'), head=dict(in_channels=_base_.channels[3]))
train_dataloader = dict(batch_size=128)
train_cfg = dict(max_epochs=550)
param_scheduler = [_base_.param_scheduler[0], dict(_base_.param_scheduler[1], end=550, T_max=530)]
