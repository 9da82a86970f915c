# The one place that says where data sets live: the environment variable SWINV2_DATA, else ./data.
data_root = '{{$SWINV2_DATA:data}}'
# What data that cannot be used does (docs/input.md): 'raise' ends the run, 'skip' goes on and keeps a list; dict(train='skip') for a part.
bad_data = 'raise'
