"""Define the errors that a user can fix; commands print them as one line, without a traceback."""


class UserError(ValueError):
    """An input of the user is invalid; the message says how to fix it."""


class DataError(UserError):
    """A file of a data set is missing, corrupt or malformed."""
