# Kinetics-400 at 256 px, clips of 32 frames out of 64. DATA/kinetics400 holds videos_train/ and videos_val/, and the lists
# kinetics400_train_list_videos.txt and kinetics400_val_list_videos.txt with a line per video: PATH CLASS (as mmaction2 has them).
# Validation looks at one view, testing at 4 clips x 3 crops. All as in Video Swin (arXiv 2106.13230, section 4.1).
_base_ = '../../../../configs/_base_/datasets/data_root.py'
num_classes = 400
size_px = 256
train_pipeline = [
    dict(type='SeedAugmentation'),
    dict(type='LoadClips', clip_len=32, interval=2, is_random=True),
    dict(type='mmpretrain.torchvision/RandomResizedCrop', size=size_px, scale=(0.08, 1.0), antialias=True),
    dict(type='mmpretrain.torchvision/RandomHorizontalFlip'),
    dict(type='PackClips'),
]
test_pipeline = [
    dict(type='LoadClips', clip_len=32, interval=2, num_clips=4),
    dict(type='mmpretrain.torchvision/Resize', size=size_px, antialias=True),
    dict(type='SpatialCrops', size_px=size_px, num_crops=3),
    dict(type='PackClips'),
]
val_pipeline = [dict(test_pipeline[0], num_clips=1), test_pipeline[1], dict(test_pipeline[2], num_crops=1), test_pipeline[3]]
root = f'{_base_.data_root}/kinetics400'
# Some of its videos are gone or broken everywhere: training skips and logs them, testing names the first.
train_dataloader = dict(
    batch_size=8, num_workers=8, persistent_workers=True, pin_memory=True, drop_last=True,
    collate_fn=dict(type='pseudo_collate'), sampler=dict(type='SeededSampler', shuffle=True),
    dataset=dict(
        type='VideoList', num_classes=num_classes, data_root=root, ann_file='kinetics400_train_list_videos.txt',
        data_prefix=dict(video='videos_train'), skip_broken=True, pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=8, num_workers=8, persistent_workers=True, pin_memory=True,
    collate_fn=dict(type='pseudo_collate'), sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='VideoList', num_classes=num_classes, data_root=root, ann_file='kinetics400_val_list_videos.txt',
        data_prefix=dict(video='videos_val'), test_mode=True, pipeline=val_pipeline))
test_dataloader = dict(val_dataloader, batch_size=1, dataset=dict(val_dataloader['dataset'], pipeline=test_pipeline))
val_evaluator = dict(type='mmpretrain.Accuracy', topk=(1, 5))
test_evaluator = val_evaluator
