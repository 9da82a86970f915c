# Every process holds the whole model and optimiser (the default with a launcher).
parallel = 'ddp'
