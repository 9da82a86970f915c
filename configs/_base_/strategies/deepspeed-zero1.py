# The same by DeepSpeed.
parallel = 'deepspeed'
