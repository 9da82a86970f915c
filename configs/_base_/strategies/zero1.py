# The paper's choice: each process holds a part of the optimiser's state (docs/scaling.md).
parallel = 'zero1'
