# COCO 2017 at many scales: short side 480 to 800, long side at most 1333 (paper appendix A2.1).
_base_ = 'coco-instance.py'
train_pipeline = [
    *_base_.train_pipeline[:3],
    dict(type='RandomResize', scale=[(1333, 480), (1333, 800)], keep_ratio=True),
    *_base_.train_pipeline[4:],
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
