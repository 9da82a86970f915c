# What every run shares, whatever the library. Included by the fragments beside it.
custom_imports = dict(imports='swinv2_mm.models')
env_cfg = dict(cudnn_benchmark=False, mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0), dist_cfg=dict(backend='nccl', timeout=1800))
custom_hooks = []  # beside those of the Runner, such as NonFiniteHook (docs/fault_tolerance.md)
# Beside the log file: any of 'tensorboard', 'mlflow', 'wandb', 'aim', 'clearml' (docs/logging.md).
log_to = []
log_level = 'INFO'
load_from = None
resume = False
randomness = dict(seed=0)
