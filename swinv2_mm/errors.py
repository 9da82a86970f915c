"""Define the errors that a user can fix; commands print them as one line, without a traceback."""

# Beyond it, the middle of a line is left out: names in files may have any length.
_MOST_LETTERS = 2000


class UserError(ValueError):
    """An input of the user is invalid; the message says how to fix it."""

    def __str__(self) -> str:
        return printable(super().__str__())


class DataError(UserError):
    """A file of a data set is missing, corrupt or malformed."""


class MissingPackageError(ModuleNotFoundError, UserError):
    """A package of an extra is not installed; the message is the line for pip."""


def one_line(value: object) -> str:
    """Return the text of an error, or of anything, with every run of white space as one space."""
    return ' '.join(str(value).split())


def printable(text: str, *, num_letters: int = _MOST_LETTERS) -> str:
    """Escape what a terminal would obey or could not show, and shorten long lines.

    Args:
        text: May hold anything, as names in files do; its lines stay.
        num_letters: Most letters of a line.
    """
    lines = text.split('\n')
    half = num_letters // 2
    lines = [f'{li[:half]} ... {li[-half:]}' if len(li) > num_letters else li for li in lines]
    return '\n'.join(
        ''.join(char if char.isprintable() else ascii(char)[1:-1] for char in li) for li in lines
    )
