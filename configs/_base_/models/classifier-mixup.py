# The classifier with Mixup or CutMix, one of the two at even odds for each batch (official Swin training code).
_base_ = 'classifier.py'
model = dict(train_cfg=dict(augments=[dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)]))
