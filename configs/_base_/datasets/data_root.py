# The one place that says where data sets live: the environment variable SWINV2_DATA, else ./data.
data_root = '{{$SWINV2_DATA:data}}'
