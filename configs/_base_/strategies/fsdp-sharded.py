# For models that no process can hold: drawn and saved in parts (docs/scaling.md).
parallel = dict(type='fsdp', init='sharded', checkpoint='sharded')
