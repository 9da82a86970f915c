# Trains: PVTv2-b4 from scratch on ImageNet-1K at 224 px, by the recipe of its authors.
# Command: tools/dist_train.sh projects/pvtv2/configs/classification/pvtv2-b4_8xb128_in1k-224.py 8 --amp
# Hardware: 8 GPUs, 128 images each; time not measured.
# Score: not measured here; published 83.6 top-1 (authors' page).
# Source: classification/ of github.com/whai362/PVT (clip of 1.0, repeated augmentation). Not as there: the cosine begins after the warm-up.
_base_ = 'pvtv2-b2_8xb128_in1k-224.py'
model = dict(backbone=dict(arch='b4', drop_path_rate=0.3))
optim_wrapper = dict(clip_grad=dict(_delete_=True, max_norm=1.0))
