# A narrow SwinV2 for CPUs and small data sets; not a size of the paper.
backbone = dict(type='SwinV2', arch=dict(embed_dim=32, depths=(2, 2, 4, 2), num_heads=(1, 2, 4, 8)), drop_path_rate=0.1)
channels = [32, 64, 128, 256]
channels_of_stage_2 = 128
channels_of_stage_3 = 256
