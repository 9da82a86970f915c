# Mask2Former for instances in mmdet. The leaf sets model.backbone and panoptic_head.in_channels;
# other classes than COCO's: num_things_classes of both heads and class_weight.
_base_ = 'mask2former-head.py'
num_things = 80
canvas_px = (1024, 1024)
model = dict(
    type='Mask2Former',
    data_preprocessor=dict(
        type='DetDataPreprocessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True, pad_size_divisor=32, pad_mask=True, mask_pad_value=0,
        batch_augments=[dict(type='BatchFixedSizePad', size=canvas_px, img_pad_value=0, pad_mask=True,
                             mask_pad_value=0, pad_seg=False)]),
    panoptic_head=dict(
        _base_.mask2former_head, num_things_classes=num_things, num_stuff_classes=0,
        loss_cls=dict(_base_.mask2former_loss_cls, class_weight=[1.0] * num_things + [0.1])),
    panoptic_fusion_head=dict(
        type='MaskFormerFusionHead', num_things_classes=num_things, num_stuff_classes=0,
        loss_panoptic=None),
    train_cfg=_base_.mask2former_train_cfg,
    test_cfg=dict(panoptic_on=False, semantic_on=False, instance_on=True, max_per_image=100,
                  iou_thr=0.8, filter_low_score=True))
