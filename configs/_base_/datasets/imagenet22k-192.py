# ImageNet-22K (fall 2011 release: 21,841 classes, 14.2 million images) at 192 px, augmented as ImageNet-1K is.
# DATA/imagenet22k/train holds a folder per class, numbered in the order of their names; a list meta/train.txt ('FILE NUMBER' a
# line) saves the scan. Not known to be the order of the released heads: the official map to ImageNet-1K agrees with these folders
# in 718 of 1,000 classes, with the sorted list of all 21,843 synsets in 999. To go on from a head trained here, write the map of
# its classes by name: swinv2-mm checkpoint class-map DATA/imagenet22k/train DATA/imagenet/train map.txt. The release has no validation split, so nothing is
# measured during training; tools/test.py wants images held out by you in val/ and their list meta/val.txt (numbers by
# folder would be wrong if a class had no image there).
_base_ = 'imagenet-256.py'
num_classes = 21841
image_size_px = 192
root = f'{_base_.data_root}/imagenet22k'
train_pipeline = [dict(step, scale=image_size_px) if 'scale' in step else step for step in _base_.train_pipeline]
test_pipeline = [
    dict(type='LoadCheckedImage'),
    dict(type='ResizeEdge', scale=image_size_px * 256 // 224, edge='short', backend='pillow', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=image_size_px),
    dict(type='PackInputs'),
]
train_dataloader = dict(dataset=dict(type='ImageNet21k', data_root=root, pipeline=train_pipeline))
val_dataloader = None
val_evaluator = None
test_dataloader = dict(dataset=dict(
    _delete_=True, type='ImageNet21k', data_root=root, data_prefix='val', ann_file='meta/val.txt', pipeline=test_pipeline))
