# SwinV2-Large (paper section 3.6). Window and drop path are set by the leaf.
backbone = dict(type='SwinV2', arch='large')
channels = [192, 384, 768, 1536]
channels_of_stage_2 = 768
channels_of_stage_3 = 1536
