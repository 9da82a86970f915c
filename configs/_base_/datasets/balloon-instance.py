# Balloons, 1 class, 61 + 13 photographs.
_base_ = 'small-instance.py'
num_classes = 1
metainfo = dict(classes=('balloon',))
root = f'{_base_.data_root}/balloon'
train_dataloader = dict(dataset=dict(data_root=root, metainfo=metainfo, ann_file='annotations/train.json', data_prefix=dict(img='train/')))
val_dataloader = dict(dataset=dict(data_root=root, metainfo=metainfo, ann_file='annotations/val.json', data_prefix=dict(img='val/')))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=f'{root}/annotations/val.json')
test_evaluator = val_evaluator
