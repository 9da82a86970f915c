"""Mistakes that a user can mend; tools print them as one line, without a traceback."""


class UserError(ValueError):
    """Something that was given to a tool does not fit; the message says how to mend it."""


class DataError(UserError):
    """A file of a data set is missing or broken."""
