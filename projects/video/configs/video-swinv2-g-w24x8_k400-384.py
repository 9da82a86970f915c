# Trains: nothing of its own; tests the Video-SwinV2-G of stage 2 at 384 px and windows 24x24x8, 4 clips x 5 crops.
# Command: tools/dist_test.sh projects/video/configs/video-swinv2-g-w24x8_k400-384.py CHECKPOINT 8
# Hardware: 8 GPUs; time and memory not measured.
# Score: published 86.8 top-1, with one view 83.4 (paper, comparison on Kinetics-400); ours not measured.
# Source: paper appendix (SwinV2-G, Kinetics-400). One view: --cfg-options test_dataloader.dataset.pipeline.0.num_clips=1 test_dataloader.dataset.pipeline.2.num_crops=1
_base_ = 'video-swinv2-g-w20x8_64xb1-5e_k400-320.py'
model = dict(backbone=dict(window_size=24))
test_pipeline = [
    dict(_base_.test_pipeline[0], num_clips=4), dict(_base_.test_pipeline[1], size=384),
    dict(_base_.test_pipeline[2], size_px=384, num_crops=5), _base_.test_pipeline[3]]
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
