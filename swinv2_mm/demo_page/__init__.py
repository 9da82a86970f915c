"""A small web page on which a trained model can be tried."""
