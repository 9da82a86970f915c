# PVTv2-b2; the other sizes change arch, b0 the channels as well.
backbone = dict(type='PVTv2', arch='b2')
channels = [64, 128, 320, 512]
