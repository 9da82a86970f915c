# ImageNet-22K at 192 px without its labels; files as configs/_base_/datasets/imagenet22k-192.py wants them.
_base_ = ['../../../../configs/_base_/datasets/imagenet22k-192.py', 'pipeline-192.py']
collate_fn = dict(type='default_collate')
train_dataloader = dict(collate_fn=collate_fn, dataset=dict(pipeline=_base_.masked_train_pipeline))
test_dataloader = dict(collate_fn=collate_fn, dataset=dict(pipeline=_base_.masked_test_pipeline))
test_evaluator = dict(_delete_=True, type='MaskedL1')
