# Trains: UperNet with SwinV2-T, window 16, on building facades (11 classes): the ADE20K recipe with another data set.
# Command: python tools/train.py configs/segmentation/upernet_swinv2-t-w16_4k_facade-512.py
# Hardware: one GPU; time not measured.
# Score: not measured.
# Source: the ADE20K recipe; 4,000 steps are an own choice.
_base_ = 'upernet_swinv2-t-w16_8xb2-160k_ade20k-512.py'
metainfo = dict(classes=('background', 'facade', 'window', 'balcony-fence', 'vegetation', 'street', 'car', 'shop', 'fence', 'traffic-infrastructure', 'non-building-infrastructure'))
model = dict(decode_head=dict(num_classes=11), auxiliary_head=dict(num_classes=11))
train_dataloader = val_dataloader = test_dataloader = dict(dataset=dict(type='BaseSegDataset', data_root=f'{_base_.data_root}/facade', metainfo=metainfo))
train_cfg = dict(max_iters=4000, val_interval=500)
default_hooks = dict(checkpoint=dict(interval=500))
param_scheduler = [dict(_base_.param_scheduler[0], end=200), dict(_base_.param_scheduler[1], begin=200, end=4000)]
