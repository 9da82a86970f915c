# What every run of this project shares.
_base_ = '../../../../configs/_base_/runtime/default.py'
custom_imports = dict(imports=['swinv2_mm.models', 'projects.video.swinv2_video'])
default_scope = 'mmengine'
visualizer = dict(type='Visualizer', vis_backends=[dict(type='LocalVisBackend')])
