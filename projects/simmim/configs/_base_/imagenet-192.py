# ImageNet-1K at 192 px without its labels; files as configs/_base_/datasets/imagenet-256.py wants them.
_base_ = ['../../../../configs/_base_/datasets/imagenet-256.py', 'pipeline-192.py']
collate_fn = dict(type='default_collate')
train_dataloader = dict(collate_fn=collate_fn, dataset=dict(pipeline=_base_.masked_train_pipeline))
val_dataloader = dict(collate_fn=collate_fn, dataset=dict(pipeline=_base_.masked_test_pipeline))
test_dataloader = dict(collate_fn=collate_fn, dataset=dict(pipeline=_base_.masked_test_pipeline))
val_evaluator = dict(_delete_=True, type='MaskedL1')
test_evaluator = val_evaluator
