"""What is wrong with a weight file, in one sentence."""

from swinv2_mm.errors import UserError


class CheckpointError(UserError):
    """Weights cannot be read, or do not fit the model; the model is unchanged."""
