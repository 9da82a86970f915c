"""Read files of data sets, and define data sets that the libraries lack."""
