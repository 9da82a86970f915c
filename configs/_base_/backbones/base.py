# SwinV2-Base (paper section 3.6). Window and drop path are set by the leaf.
backbone = dict(type='SwinV2', arch='base')
channels = [128, 256, 512, 1024]
channels_of_stage_2 = 512
channels_of_stage_3 = 1024
