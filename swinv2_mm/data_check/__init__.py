"""Dataset validation: what ``check`` reports, and what training and testing refuse.

The libraries' loaders pass over a broken instance or an unlisted file in silence; these modules
read the files themselves and name each problem.
"""
