# Trains: PVTv2-b2-li from scratch on ImageNet-1K at 224 px, by the recipe of its authors.
# Command: tools/dist_train.sh projects/pvtv2/configs/classification/pvtv2-b2-li_8xb128_in1k-224.py 8 --amp
# Hardware: 8 GPUs, 128 images each; time not measured.
# Score: not measured here; published 82.1 top-1 (authors' page).
# Source: classification/ of github.com/whai362/PVT (repeated augmentation). Not as there: the cosine begins after the warm-up.
_base_ = 'pvtv2-b2_8xb128_in1k-224.py'
model = dict(backbone=dict(arch='b2-li'))
