# SwinV2-Giant (paper section 3.6). Window and drop path are set by the leaf.
backbone = dict(type='SwinV2', arch='giant')
channels = [512, 1024, 2048, 4096]
channels_of_stage_2 = 2048
channels_of_stage_3 = 4096
