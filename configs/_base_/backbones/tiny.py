# SwinV2-Tiny (paper section 3.6). Window and drop path are set by the leaf.
backbone = dict(type='SwinV2', arch='tiny')
channels = [96, 192, 384, 768]
channels_of_stage_2 = 384
channels_of_stage_3 = 768
