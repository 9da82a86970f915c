# Four iterations make one update; max_iters goes on counting iterations.
accumulate = 4
