# Trains: PVTv2-b3 from scratch on ImageNet-1K at 224 px, by the recipe of MindCV (550 epochs).
# Command: tools/dist_train.sh projects/pvtv2/configs/classification/pvtv2-b3_8xb128_mindcv_in1k-224.py 8 --amp
# Hardware: 8 GPUs, 128 images each; time not measured.
# Score: not measured here; published 82.84 top-1, 96.24 top-5 (MindCV model page).
# Source: MindCV, configs/pvtv2/pvt_v2_b3_ascend.yaml. Not as there: norms and biases do not decay.
_base_ = 'pvtv2-b2_8xb128_mindcv_in1k-224.py'
model = dict(backbone=dict(arch='b3', drop_path_rate=0.3))
optim_wrapper = dict(optimizer=dict(lr=2e-3))
param_scheduler = [_base_.param_scheduler[0], dict(_base_.param_scheduler[1], eta_min_ratio=5e-4)]
