"""What a model costs: parameters, operations, memory. Nothing here allocates a model."""
