# Trains: PVTv2-b2 from scratch on ImageNet-1K at 224 px, by the recipe of its authors.
# Command: tools/dist_train.sh projects/pvtv2/configs/classification/pvtv2-b2_8xb128_in1k-224.py 8 --amp
# Hardware: 8 GPUs, 128 images each; time not measured.
# Score: not measured here; published 82.0 top-1 (authors' page).
# Source: classification/ of github.com/whai362/PVT (repeated augmentation). Not as there: the cosine begins after the warm-up.
_base_ = ['../../../../configs/_base_/models/classifier-mixup.py', '../../../../configs/_base_/datasets/imagenet-224.py',
          '../_base_/schedules/imagenet-300e.py', '../../../../configs/_base_/runtime/classification.py', '../_base_/backbone.py']
custom_imports = dict(imports=['swinv2_mm.models', 'projects.pvtv2.pvtv2'])
model = dict(backbone=dict(_base_.backbone, drop_path_rate=0.1), head=dict(in_channels=_base_.channels[3]))
train_dataloader = dict(batch_size=128, sampler=dict(_delete_=True, type='SeededRepeatSampler', num_repeats=3))
