# Building facades, 10 classes, 200 + 60 images of 640 px (see docs/results.md for the source).
_base_ = 'small-instance.py'
num_classes = 10
metainfo = dict(classes=('facade', 'window', 'balcony-fence', 'vegetation', 'street', 'car', 'shop', 'fence', 'traffic-infrastructure', 'non-building-infrastructure'))
root = f'{_base_.data_root}/facade'
train_dataloader = dict(dataset=dict(data_root=root, metainfo=metainfo, ann_file='instances/train.json', data_prefix=dict(img='images/training/')))
val_dataloader = dict(dataset=dict(data_root=root, metainfo=metainfo, ann_file='instances/val.json', data_prefix=dict(img='images/validation/')))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=f'{root}/instances/val.json')
test_evaluator = val_evaluator
