"""Text files with an image and its class number a line, looked over before they are read."""

from __future__ import annotations

from swinv2_mm.datasets.files import read_bytes, shown
from swinv2_mm.errors import DataError

from .faults import Fault, Screened


def screen_list(path: str, *, num_classes: int | None) -> Screened:
    """Look a text of lines ``file number`` over; content is the lines that can be used.

    Raises:
        DataError: If it is no text.
    """
    try:
        text = read_bytes(path, what='annotation file', limit=None).decode()
    except UnicodeDecodeError as error:
        raise DataError(f'annotation file {shown(path)} is not a text in UTF-8') from error
    screened = Screened([])
    for number, line in enumerate(text.splitlines(), start=1):
        name, _, label = line.strip().rpartition(' ')
        if not name or not (label.isascii() and label.isdecimal()):
            fault = Fault('line-malformed', f'line {number}', line[:80])
        elif num_classes is not None and int(label) >= num_classes:
            detail = f'{label}, there are {num_classes} classes'
            fault = Fault('label-out-of-range', f'line {number}', detail)
        else:
            screened.content.append(line)
            continue
        screened.faults.append(fault)
    return screened
