# HTC++ without the mask and the semantic branch, with narrow heads and fewer samples, for CPUs and
# small data sets. 12 tokens: the last map of a 384 px image.
_base_ = 'htc++-box.py'
model = dict(
    neck=dict(reference_window=12, with_cp=False, neck=dict(out_channels=64)),
    rpn_head=dict(in_channels=64, feat_channels=64, anchor_generator=dict(scales=[4])),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=64),
        bbox_head=[dict(head, in_channels=64, fc_out_channels=256) for head in _base_.model.roi_head.bbox_head]),
    train_cfg=dict(
        rpn_proposal=dict(nms_pre=500, max_per_img=200),
        rcnn=[dict(cfg, sampler=dict(cfg.sampler, num=32, pos_fraction=0.5)) for cfg in _base_.model.train_cfg.rcnn]),
    test_cfg=dict(rpn=dict(nms_pre=500, max_per_img=200)))
