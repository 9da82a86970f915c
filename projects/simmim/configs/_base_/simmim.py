# SimMIM (arXiv 2111.09886): a mask token in the embedding, a decoder of one layer, L1 on the masked pixels. The leaf sets
# model.backbone and model.neck.in_channels. Targets are normalised as in the official SwinV2 recipe (windows of 47 px).
model = dict(
    type='MaskedImageModel',
    data_preprocessor=dict(
        type='SelfSupDataPreprocessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True),
    backbone=dict(out_indices=(3,)),
    neck=dict(type='SimMIMLinearDecoder', encoder_stride=32),
    head=dict(type='MaskedPixelHead', target_window_px=47))
