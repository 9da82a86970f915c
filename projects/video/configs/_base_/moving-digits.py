# Generated videos of 48 px with 10 to 14 frames; the class is one of eight directions of motion. Written by
# python -m projects.video.swinv2_video.moving_digits $SWINV2_DATA/moving_digits
# No mirroring: it would change the class.
_base_ = '../../../../configs/_base_/datasets/data_root.py'
num_classes = 8
train_pipeline = [dict(type='SeedAugmentation'), dict(type='LoadClips', clip_len=8, is_random=True), dict(type='PackClips')]
test_pipeline = [dict(type='LoadClips', clip_len=8), dict(type='PackClips')]
root = f'{_base_.data_root}/moving_digits'
train_dataloader = dict(
    batch_size=16, num_workers=1, drop_last=True,
    collate_fn=dict(type='pseudo_collate'), sampler=dict(type='SeededSampler', shuffle=True),
    dataset=dict(
        type='VideoList', num_classes=num_classes, data_root=root, ann_file='train.txt', data_prefix=dict(video='train'),
        pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=32, num_workers=1,
    collate_fn=dict(type='pseudo_collate'), sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='VideoList', num_classes=num_classes, data_root=root, ann_file='val.txt', data_prefix=dict(video='val'),
        test_mode=True, pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(type='mmpretrain.Accuracy', topk=(1, 5))
test_evaluator = val_evaluator
