# The forward pass in bfloat16, weights and updates in float32; on a CPU too.
precision = 'bf16'
