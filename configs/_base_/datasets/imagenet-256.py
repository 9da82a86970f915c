# ImageNet-1K at 256 px. DATA/imagenet holds train/ and val/ with a folder per class. Instead, meta/train.txt and
# meta/val.txt may list the images ('FILE NUMBER' a line); val/ may then hold its files side by side.
# SWINV2_TEST_SET=imagenetv2 in the environment has tools/test.py measure on ImageNet-V2 (arXiv 1902.10811).
# Augmentation and test pre-processing are those of the official Swin code (rand-m9-mstd0.5-inc1, erasing 0.25 with noise;
# resize to 256/224 of the size, centre crop); no repeated augmentation, no colour jitter beside RandAugment.
_base_ = 'data_root.py'
num_classes = 1000
image_size_px = 256
mean_bgr = [103.53, 116.28, 123.675]
std_bgr = [57.375, 57.12, 58.395]
train_pipeline = [
    dict(type='SeedAugmentation'),
    dict(type='LoadCheckedImage'),
    dict(type='RandomResizedCrop', scale=image_size_px, crop_ratio_range=(0.08, 1.0), backend='pillow', interpolation='bicubic'),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='RandAugment', policies='timm_increasing', num_policies=2, total_level=10, magnitude_level=9, magnitude_std=0.5,
         hparams=dict(pad_val=[round(value) for value in mean_bgr], interpolation='bicubic')),
    dict(type='RandomErasing', erase_prob=0.25, mode='rand', min_area_ratio=0.02, max_area_ratio=1 / 3, fill_color=mean_bgr, fill_std=std_bgr),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='LoadCheckedImage'),
    dict(type='ResizeEdge', scale=image_size_px * 256 // 224, edge='short', backend='pillow', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=image_size_px),
    dict(type='PackInputs'),
]
root = f'{_base_.data_root}/imagenet'
test_sets = dict(
    imagenet=dict(type='ImageNet', data_root=root, split='val', data_prefix='val', pipeline=test_pipeline),
    # Matched frequency, the variant that is meant where none is named.
    imagenetv2=dict(
        type='NumberedFolders', data_root=f'{_base_.data_root}/imagenetv2',
        data_prefix=dict(img_path='imagenetv2-matched-frequency-format-val'), pipeline=test_pipeline))
train_dataloader = dict(
    batch_size=64, num_workers=8, persistent_workers=True, pin_memory=True, drop_last=True,
    sampler=dict(type='SeededSampler', shuffle=True),
    dataset=dict(type='ImageNet', data_root=root, split='train', data_prefix='train', pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=64, num_workers=8, persistent_workers=True, pin_memory=True,
    sampler=dict(type='DefaultSampler', shuffle=False), dataset=test_sets['imagenet'])
test_set = '{{$SWINV2_TEST_SET:imagenet}}'
assert test_set in test_sets, f'SWINV2_TEST_SET is {test_set}, not one of {", ".join(test_sets)}'
test_dataloader = dict(val_dataloader, dataset=test_sets[test_set])
val_evaluator = dict(type='Accuracy', topk=(1, 5))
test_evaluator = val_evaluator
