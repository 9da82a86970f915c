# Five kinds of flowers, 600 + 150 photographs.
_base_ = 'small-folder.py'
num_classes = 5
root = f'{_base_.data_root}/flowers'
train_dataloader = dict(dataset=dict(data_root=root, data_prefix='train'))
val_dataloader = dict(dataset=dict(data_root=root, data_prefix='val'))
test_dataloader = val_dataloader
