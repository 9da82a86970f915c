# SwinV2-Huge (paper section 3.6). Window and drop path are set by the leaf.
backbone = dict(type='SwinV2', arch='huge')
channels = [352, 704, 1408, 2816]
channels_of_stage_2 = 1408
channels_of_stage_3 = 2816
