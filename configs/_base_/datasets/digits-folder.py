# Single digits on photographs, 64 px, one folder per class.
_base_ = 'small-folder.py'
num_classes = 10
root = f'{_base_.data_root}/digits/folders'
train_pipeline = [dict(type='LoadCheckedImage'), dict(type='PackInputs')]
test_pipeline = train_pipeline
train_dataloader = dict(
    batch_size=64, sampler=dict(type='SeededInfiniteSampler'),
    dataset=dict(data_root=root, data_prefix='train', pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(data_root=root, data_prefix='val', pipeline=test_pipeline))
test_dataloader = val_dataloader
