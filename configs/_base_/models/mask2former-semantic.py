# Mask2Former for label maps in mmseg. The leaf sets model.backbone, decode_head.in_channels and, for
# other classes than ADE20K's, num_classes and class_weight.
_base_ = 'mask2former-head.py'
num_labels = 150
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True, pad_val=0, seg_pad_val=255, size=(512, 512), test_cfg=dict(size_divisor=32)),
    decode_head=dict(
        _base_.mask2former_head, num_classes=num_labels, align_corners=False,
        loss_cls=dict(_base_.mask2former_loss_cls, class_weight=[1.0] * num_labels + [0.1]),
        train_cfg=_base_.mask2former_train_cfg),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'))
