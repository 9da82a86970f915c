"""The fixtures of tests/conftest.py, for the projects' tests too."""

from conftest import (  # noqa: F401
    data_root,
    digits_root,
    refused,
    subprocess_environment,
    tool,
    use_data,
)
