# Mask2Former for things and stuff. The leaf sets what mask2former-instance.py asks for.
_base_ = 'mask2former-instance.py'
num_stuff = 53
model = dict(
    data_preprocessor=dict(
        pad_seg=True, seg_pad_value=255,
        batch_augments=[dict(_base_.model.data_preprocessor.batch_augments[0], pad_seg=True, seg_pad_value=255)]),
    panoptic_head=dict(
        num_stuff_classes=num_stuff,
        loss_cls=dict(class_weight=[1.0] * (_base_.num_things + num_stuff) + [0.1])),
    panoptic_fusion_head=dict(num_stuff_classes=num_stuff),
    test_cfg=dict(panoptic_on=True))
