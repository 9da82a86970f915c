# Trains: PVTv2-b1 from scratch on ImageNet-1K at 224 px, by the recipe of MindCV (500 epochs).
# Command: tools/dist_train.sh projects/pvtv2/configs/classification/pvtv2-b1_8xb128_mindcv_in1k-224.py 8 --amp
# Hardware: 8 GPUs, 128 images each; time not measured.
# Score: not measured here; published 78.91 top-1, 94.49 top-5 (MindCV model page).
# Source: MindCV, configs/pvtv2/pvt_v2_b1_ascend.yaml. Not as there: norms and biases do not decay, the rate falls every step.
_base_ = 'pvtv2-b2_8xb128_mindcv_in1k-224.py'
model = dict(backbone=dict(arch='b1', drop_path_rate=0.1))
train_cfg = dict(max_epochs=500)
param_scheduler = [
    dict(_base_.param_scheduler[0], end=10),
    dict(_base_.param_scheduler[1], begin=10, end=500, T_max=490, eta_min_ratio=1e-2)]
