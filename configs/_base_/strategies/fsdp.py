# Each process holds a part of the weights, gradients and optimiser's state; checkpoints are whole.
parallel = 'fsdp'
