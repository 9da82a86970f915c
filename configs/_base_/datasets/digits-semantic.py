# The same pictures with label maps: 0 is the photograph, 1 to 10 the digits.
_base_ = 'small-semantic.py'
num_classes = 11
crop_size_px = (128, 128)
metainfo = dict(
    classes=('photograph', 'zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine'),
    palette=[[0, 0, 0], [204, 102, 119], [51, 34, 136], [221, 204, 119], [17, 119, 51], [136, 204, 238], [136, 34, 85], [68, 170, 153], [153, 153, 51], [170, 68, 153], [221, 221, 221]])
root = f'{_base_.data_root}/digits'
train_pipeline = [dict(type='LoadCheckedImage'), dict(type='LoadCheckedAnnotations'), dict(type='PackSegInputs')]
test_pipeline = train_pipeline
train_dataloader = dict(dataset=dict(data_root=root, metainfo=metainfo, data_prefix=dict(img_path='images/train', seg_map_path='label_maps/train'), pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(data_root=root, metainfo=metainfo, data_prefix=dict(img_path='images/val', seg_map_path='label_maps/val'), pipeline=test_pipeline))
test_dataloader = val_dataloader
