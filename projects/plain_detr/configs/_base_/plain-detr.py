# Plain DETR (arXiv 2308.01904) with boxes in pixels, without an encoder. The leaf sets model.backbone,
# model.neck.in_channels and bbox_head.num_classes.
width = 256
attention = dict(type='MultiheadAttention', embed_dims=width, num_heads=8)
model = dict(
    type='PlainDETR', num_queries=300, num_one_to_many=1500,
    # A padded border would count as image where sizes in a batch are equal.
    data_preprocessor=dict(
        type='DetDataPreprocessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True, pad_size_divisor=1),
    backbone=dict(out_indices=(3,)),
    neck=dict(type='UpsampledMap', kernel_size=1, out_channels=width, bias=True, act_cfg=None,
              norm_cfg=dict(type='GN', num_groups=32)),
    decoder=dict(
        num_layers=6,
        layer_cfg=dict(
            operation_order=('norm', 'self_attn', 'norm', 'cross_attn', 'norm', 'ffn'),
            attn_cfgs=attention,
            ffn_cfgs=dict(type='FFN', embed_dims=width, feedforward_channels=2048, num_fcs=2, act_cfg=dict(type='ReLU', inplace=True))),
        bias_cfg=dict(num_heads=8, hidden_channels=512, offsets='linear')),
    bbox_head=dict(
        type='PlainDETRHead', num_classes=80, embed_dims=width, num_repeats=6,
        loss_cls=dict(type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=2.0),
        loss_bbox=dict(type='L1Loss', loss_weight=1.0),
        loss_iou=dict(type='GIoULoss', loss_weight=2.0)),
    train_cfg=dict(
        assigner=dict(
            type='HungarianAssigner',
            match_costs=[
                dict(type='FocalLossCost', weight=2.0),
                dict(type='BoxDeltaL1Cost', weight=1.0),
                dict(type='IoUCost', iou_mode='giou', weight=2.0)])),
    test_cfg=dict(max_per_img=100))
