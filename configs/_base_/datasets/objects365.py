# Objects365 v2, 365 classes, boxes only. Layout below data_root/objects365: annotations/, train/,
# val/. The short side is drawn from 800 to 1024 px (recipes: "800-1024").
_base_ = 'data_root.py'
dataset_type = 'Objects365V2Dataset'
num_classes = 365
root = f'{_base_.data_root}/objects365'
train_pipeline = [
    dict(type='SeedAugmentation'),
    dict(type='LoadCheckedImage'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='RandomResize', scale=[(1706, 800), (1706, 1024)], keep_ratio=True),
    dict(type='FilterAnnotations', min_gt_bbox_wh=(1, 1)),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs')]
test_pipeline = [
    dict(type='LoadCheckedImage'),
    dict(type='Resize', scale=(1706, 1024), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))]
train_dataloader = dict(
    batch_size=1, num_workers=4, persistent_workers=True,
    sampler=dict(type='SeededInfiniteSampler', shuffle=True),
    dataset=dict(
        type=dataset_type, data_root=root, ann_file='annotations/zhiyuan_objv2_train.json', data_prefix=dict(img='train/'),
        filter_cfg=dict(filter_empty_gt=True, min_size=32), pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=1, num_workers=2, sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type, test_mode=True, data_root=root, ann_file='annotations/zhiyuan_objv2_val.json',
        data_prefix=dict(img='val/'), pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(type='CocoMetric', metric='bbox', ann_file=f'{root}/annotations/zhiyuan_objv2_val.json')
test_evaluator = val_evaluator
