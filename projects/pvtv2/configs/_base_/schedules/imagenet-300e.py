# ImageNet-1K as in PVT's code: 300 epochs of 1,024 images a step, 5 warming up from 1e-6, cosine to 1e-5.
_base_ = '../../../../../configs/_base_/schedules/imagenet-300e.py'
optim_wrapper = dict(clip_grad=None)
param_scheduler = [dict(_base_.param_scheduler[0], end=5), dict(_base_.param_scheduler[1], begin=5, T_max=295)]
