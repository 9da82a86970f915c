# Backbone, mean over time and space, one linear layer. The leaf sets arch, windows and num_classes.
model = dict(
    type='VideoRecognizer',
    data_preprocessor=dict(type='VideoPreprocessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]),
    backbone=dict(type='VideoSwinV2', out_indices=(3,)))
