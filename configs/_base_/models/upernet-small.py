# UperNet with an eighth of the head width, for CPUs and small data sets.
_base_ = 'upernet.py'
model = dict(decode_head=dict(channels=64), auxiliary_head=dict(channels=32))
