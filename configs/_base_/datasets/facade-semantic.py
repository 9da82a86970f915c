# Building facades, 11 classes (0 is what nobody outlined, nearly always sky), 200 + 60 images.
_base_ = 'small-semantic.py'
num_classes = 11
metainfo = dict(
    classes=('background', 'facade', 'window', 'balcony-fence', 'vegetation', 'street', 'car', 'shop', 'fence', 'traffic-infrastructure', 'non-building-infrastructure'),
    palette=[[0, 0, 0], [180, 120, 90], [60, 120, 220], [230, 160, 40], [60, 160, 60], [128, 64, 128], [200, 30, 60], [240, 90, 200], [120, 200, 200], [240, 240, 60], [150, 150, 150]])
root = f'{_base_.data_root}/facade'
train_dataloader = dict(dataset=dict(data_root=root, metainfo=metainfo, data_prefix=dict(img_path='images/training', seg_map_path='annotations/training')))
val_dataloader = dict(dataset=dict(data_root=root, metainfo=metainfo, data_prefix=dict(img_path='images/validation', seg_map_path='annotations/validation')))
test_dataloader = val_dataloader
