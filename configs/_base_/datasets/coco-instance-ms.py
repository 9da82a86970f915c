# COCO 2017 at many scales, as published for Swin's 3x schedule: half the images at one of eleven short sides of 480 to 800 px, the
# other half cropped in between; long side at most 1333 (Swin-Transformer-Object-Detection, configs/swin/*mstrain*_3x; paper
# appendix A2.1 gives the range only).
_base_ = 'coco-instance.py'
scales = [(short, 1333) for short in range(480, 801, 32)]
any_scale = dict(type='RandomChoiceResize', scales=scales, keep_ratio=True)
crop = dict(type='RandomCrop', crop_type='absolute_range', crop_size=(384, 600), allow_negative_crop=True)
before_crop = dict(type='RandomChoiceResize', scales=[(400, 1333), (500, 1333), (600, 1333)], keep_ratio=True)
train_pipeline = [
    *_base_.train_pipeline[:3],
    dict(type='RandomFlip', prob=0.5),
    dict(type='RandomChoice', transforms=[[any_scale], [before_crop, crop, any_scale]]),
    dict(type='PackDetInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
