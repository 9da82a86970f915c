# Trains: nothing of its own; tests the UperNet with SwinV2-G trained at 640 px and window 40 on ADE20K at 896 px and window 56.
# Command: tools/dist_test.sh configs/segmentation/upernet_swinv2-g-w56_ade20k-896.py CHECKPOINT 8
# Hardware: 8 GPUs; time and memory not measured.
# Score: published 59.3 mIoU, at many scales 59.9 (paper, comparison on ADE20K); ours not measured.
# Source: paper appendix A2.2.
_base_ = 'upernet_swinv2-g-w40_8xb4-80k_ade20k-640.py'
model = dict(backbone=dict(window_size=56))
test_pipeline = [_base_.test_pipeline[0], dict(_base_.test_pipeline[1], scale=(3584, 896)), *_base_.test_pipeline[2:]]
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
