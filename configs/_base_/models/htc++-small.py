# HTC++ with narrow heads and fewer samples, for CPUs and small data sets; all but the two branches
# is that of htc++-box-small.py.
_base_ = 'htc++.py'
model = dict(
    neck=dict(reference_window=12, with_cp=False, neck=dict(out_channels=64)),
    rpn_head=dict(in_channels=64, feat_channels=64, anchor_generator=dict(scales=[4])),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=64),
        bbox_head=[dict(head, in_channels=64, fc_out_channels=256) for head in _base_.model.roi_head.bbox_head],
        mask_roi_extractor=dict(out_channels=64),
        mask_head=[dict(head, num_convs=2, in_channels=64, conv_out_channels=64) for head in _base_.model.roi_head.mask_head],
        semantic_roi_extractor=dict(out_channels=64),
        semantic_head=dict(num_convs=2, in_channels=64, conv_out_channels=64)),
    train_cfg=dict(
        rpn_proposal=dict(nms_pre=500, max_per_img=200),
        rcnn=[dict(cfg, sampler=dict(cfg.sampler, num=32, pos_fraction=0.5)) for cfg in _base_.model.train_cfg.rcnn]),
    test_cfg=dict(rpn=dict(nms_pre=500, max_per_img=200)))
