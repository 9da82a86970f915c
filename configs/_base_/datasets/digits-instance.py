# Handwritten digits on photographs, 10 classes, 128 px: the set that `make demo` makes.
_base_ = 'small-instance.py'
num_classes = 10
metainfo = dict(classes=('zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine'))
root = f'{_base_.data_root}/digits'
# No flip: a mirrored digit is another sign.
train_pipeline = [
    dict(type='LoadCheckedImage'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='PackDetInputs')]
test_pipeline = [
    dict(type='LoadCheckedImage'),
    dict(type='Resize', scale=(128, 128), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))]
train_dataloader = dict(batch_size=4, dataset=dict(
    data_root=root, metainfo=metainfo, ann_file='annotations/train.json', data_prefix=dict(img='images/train/'), pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(
    data_root=root, metainfo=metainfo, ann_file='annotations/val.json', data_prefix=dict(img='images/val/'), pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=f'{root}/annotations/val.json')
test_evaluator = val_evaluator
