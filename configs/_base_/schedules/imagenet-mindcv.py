# MindCV on ImageNet-1K: 1,024 images a step, warm-up from nothing, cosine to 1e-6, no clipping. Here 450 epochs, 20 of them warm-up.
_base_ = 'imagenet-300e.py'
optim_wrapper = dict(clip_grad=None)
train_cfg = dict(max_epochs=450)
param_scheduler = [
    dict(_base_.param_scheduler[0], start_factor=1e-6),
    dict(_base_.param_scheduler[1], end=450, T_max=430, eta_min_ratio=1e-3)]
