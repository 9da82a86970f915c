# HTC++ of the Swin papers (arXiv 2103.14030, 2111.09883): HTC with one global self-attention layer
# on the last map, and soft-NMS at test. Large-scale jitter and InstaBoost: _base_/datasets/htc-*.py.
_base_ = 'htc.py'
model = dict(
    # 48 tokens: the last map of a 1536 px image.
    neck=dict(_delete_=True, type='GlobalAttentionNeck', reference_window=48, with_cp=True,
              neck=dict(type='mmdet.FPN', out_channels=256, num_outs=5)),
    # Jitter makes images of a few pixels, inside which no anchor fits: they train on those across
    # the border as well.
    train_cfg=dict(rpn=dict(allowed_border=-1)),
    # Soft-NMS lowers scores instead of dropping boxes: the threshold before it has to be low.
    test_cfg=dict(rcnn=dict(score_thr=0.001, nms=dict(type='soft_nms', iou_threshold=0.5))))
