"""Looking a data set over before hours of training.

The libraries' loaders pass over a broken instance or an unlisted file in silence; these modules
read the files themselves and name what they find.
"""
