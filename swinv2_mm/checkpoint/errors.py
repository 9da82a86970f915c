"""Define the error of a weights file that cannot be used."""

from swinv2_mm.errors import UserError


class CheckpointError(UserError):
    """Weights cannot be read, or do not fit the model; the model is unchanged."""

    def __str__(self) -> str:
        # Names in files may hold line breaks; a message is one line.
        return super().__str__().replace('\n', '\\n')
