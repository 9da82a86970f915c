# COCO 2017 for HTC++: instances, label maps (COCO-Stuff, 0 to 181 and 255) for the semantic branch,
# InstaBoost, and large-scale jitter into 1536 px. Layout below data_root/coco: annotations/,
# train2017/, val2017/, stuffthingmaps/train2017/.
_base_ = 'data_root.py'
# Two boxes of train2017 have no height (cocoapi issue 355).
bad_data = dict(_delete_=True, train='skip')
dataset_type = 'CocoDataset'
num_classes = 80
num_semantic_classes = 183
root = f'{_base_.data_root}/coco'
crop_size_px = (1536, 1536)
# The papers give one number, 1100; it is read as the short side, with the usual 1333 : 800 as limit.
test_size_px = (1833, 1100)
train_pipeline = [
    dict(type='SeedAugmentation'),
    dict(type='LoadCheckedImage'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='LoadCheckedAnnotations', num_classes=num_semantic_classes),
    dict(type='CheckedInstaBoost'),
    dict(type='RandomResize', scale=crop_size_px, ratio_range=(0.1, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=crop_size_px, recompute_bbox=True, allow_negative_crop=True),
    dict(type='FilterAnnotations', min_gt_bbox_wh=(1, 1)),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs')]
test_pipeline = [
    dict(type='LoadCheckedImage'),
    dict(type='Resize', scale=test_size_px, keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))]
train_dataloader = dict(
    batch_size=1, num_workers=4, persistent_workers=True,
    sampler=dict(type='SeededInfiniteSampler', shuffle=True),
    dataset=dict(
        type=dataset_type, data_root=root, ann_file='annotations/instances_train2017.json',
        data_prefix=dict(img='train2017/', seg='stuffthingmaps/train2017/'),
        filter_cfg=dict(filter_empty_gt=True, min_size=32), pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=1, num_workers=2, sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type, test_mode=True, data_root=root, ann_file='annotations/instances_val2017.json',
        data_prefix=dict(img='val2017/'), pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(type='CocoMetric', metric=['bbox', 'segm'], ann_file=f'{root}/annotations/instances_val2017.json')
test_evaluator = val_evaluator
