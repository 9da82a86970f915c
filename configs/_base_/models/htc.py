# Hybrid Task Cascade (arXiv 1901.07518) on FPN, with the semantic branch. The leaf sets
# model.backbone, model.neck.in_channels and, where they are not those of COCO, the class counts.
_base_ = 'cascade-mask-rcnn.py'
model = dict(
    type='HybridTaskCascade',
    # What pads a batch has no semantic label.
    data_preprocessor=dict(pad_seg=True, seg_pad_value=255),
    roi_head=dict(
        type='HybridTaskCascadeRoIHead', interleaved=True, mask_info_flow=True,
        mask_head=[
            dict(type='HTCMaskHead', with_conv_res=stage > 0, num_convs=4, in_channels=256, conv_out_channels=256,
                 num_classes=80, loss_mask=dict(type='CrossEntropyLoss', use_mask=True, loss_weight=1.0))
            for stage in range(3)
        ],
        semantic_roi_extractor=dict(
            type='SingleRoIExtractor', out_channels=256, featmap_strides=[8],
            roi_layer=dict(type='RoIAlign', output_size=14, sampling_ratio=0)),
        # 183: the label maps of COCO-Stuff. They are shrunk to stride 8, that of fusion_level.
        semantic_head=dict(
            type='FusedSemanticHead', num_ins=5, fusion_level=1, seg_scale_factor=1 / 8, num_convs=4,
            in_channels=256, conv_out_channels=256, num_classes=183,
            loss_seg=dict(type='CrossEntropyLoss', ignore_index=255, loss_weight=0.2))))
