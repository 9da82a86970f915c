# Flowers and facades, 800 + 210 photographs without their labels, at 96 px: 6 x 6 blocks, as at 192 px with blocks of 32.
_base_ = ['../../../../configs/_base_/datasets/data_root.py', 'pipeline-192.py']
sizes_px = dict(scale=96, crop_size=96, input_size=96, mask_patch_size=16)
masked_train_pipeline = [{k: sizes_px.get(k, v) for k, v in step.items()} for step in _base_.masked_train_pipeline]
masked_test_pipeline = [{k: sizes_px.get(k, v) for k, v in step.items()} for step in _base_.masked_test_pipeline]
folder = dict(type='CustomDataset', with_label=False)
train_dataloader = dict(
    batch_size=32, num_workers=1, persistent_workers=True, collate_fn=dict(type='default_collate'),
    sampler=dict(type='SeededSampler', shuffle=True),
    dataset=dict(type='ConcatDataset', datasets=[
        dict(folder, data_root=f'{_base_.data_root}/flowers', data_prefix='train', pipeline=masked_train_pipeline),
        dict(folder, data_root=f'{_base_.data_root}/facade', data_prefix='images/training', pipeline=masked_train_pipeline)]))
val_dataloader = dict(
    batch_size=32, num_workers=1, collate_fn=dict(type='default_collate'), sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='ConcatDataset', datasets=[
        dict(folder, data_root=f'{_base_.data_root}/flowers', data_prefix='val', pipeline=masked_test_pipeline),
        dict(folder, data_root=f'{_base_.data_root}/facade', data_prefix='images/validation', pipeline=masked_test_pipeline)]))
test_dataloader = val_dataloader
val_evaluator = dict(type='MaskedL1')
test_evaluator = val_evaluator
