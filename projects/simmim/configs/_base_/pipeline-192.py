# Light augmentation and random blocks of 32 px, 60 % of them hidden (official SimMIM code; paper appendix for SwinV2-G).
# In validation an image has the same mask every time.
masked_train_pipeline = [
    dict(type='SeedAugmentation'),
    dict(type='LoadCheckedImage'),
    dict(type='RandomResizedCrop', scale=192, crop_ratio_range=(0.67, 1.0), aspect_ratio_range=(3 / 4, 4 / 3), backend='pillow'),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='RandomBlockMask', input_size=192, mask_patch_size=32, mask_ratio=0.6),
    dict(type='PackInputs'),
]
masked_test_pipeline = [
    dict(type='LoadCheckedImage'),
    dict(type='ResizeEdge', scale=192, edge='short', backend='pillow'),
    dict(type='CenterCrop', crop_size=192),
    dict(type='RandomBlockMask', input_size=192, mask_patch_size=32, mask_ratio=0.6, is_fixed=True),
    dict(type='PackInputs'),
]
