"""Read MindSpore's ``.ckpt`` files without MindSpore.

They are protocol buffers in the wire format: ``Checkpoint { repeated Value value = 1; }``,
``Value { string tag = 1; TensorProto tensor = 2; }``, ``TensorProto { repeated int64 dims = 1;
string tensor_type = 2; bytes tensor_content = 3; }``. A tensor of more than 512 MB is several
values with the same tag. Such a file can ask for nothing but its own bytes: every length is
compared with what is left.
"""

from __future__ import annotations

import math
import zlib
from pathlib import Path
from typing import BinaryIO, NamedTuple

import torch
from torch import Tensor

from .errors import CheckpointError

# Field 1 with a length: the first byte of a Checkpoint, and of no pickle or archive.
_FIRST_BYTE = b'\x0a'
# What save_checkpoint(crc_check=True) appends, with the CRC-32 of the rest in ten bytes.
_CHECKSUM_MARK = b'crc_num'
_CHECKSUM_BYTES = len(_CHECKSUM_MARK) + 10
_MOST_VALUES = 20_000
_MOST_NAME_BYTES = 4096
_MOST_DIMS = 16
_CHUNK_BYTES = 1 << 20
_TYPES = {
    'Float16': torch.float16,
    'BFloat16': torch.bfloat16,
    'Float32': torch.float32,
    'Float64': torch.float64,
    'Int8': torch.int8,
    'Int16': torch.int16,
    'Int32': torch.int32,
    'Int64': torch.int64,
    'UInt8': torch.uint8,
    'Bool': torch.bool,
}
_VARINT, _BYTES = 0, 2


class _MalformedError(ValueError):
    """The bytes are not a MindSpore checkpoint."""


def is_mindspore(path: Path) -> bool:
    """Whether a file begins as a MindSpore checkpoint does."""
    with path.open('rb') as file:
        return file.read(1) == _FIRST_BYTE


def read_mindspore(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a MindSpore checkpoint by their names.

    Raises:
        CheckpointError: If the file is damaged, encrypted, or holds something else than tensors.
    """
    try:
        with path.open('rb') as file:
            return _Reader(file, end=_checked_end(file, num_bytes=path.stat().st_size)).tensors()
    except OSError as error:
        raise CheckpointError(f'cannot read {path}: {error.strerror}') from None
    except (_MalformedError, MemoryError) as error:
        raise CheckpointError(
            f'{path} is damaged, encrypted or not a MindSpore checkpoint ({error or "too large"})'
        ) from None


def _checked_end(file: BinaryIO, *, num_bytes: int) -> int:
    """Return where the content ends, and compare its checksum if there is one."""
    end = num_bytes - _CHECKSUM_BYTES
    if end <= 0:
        return num_bytes
    file.seek(end)
    trailer = file.read(_CHECKSUM_BYTES)
    file.seek(0)
    if not trailer.startswith(_CHECKSUM_MARK):
        return num_bytes
    checksum = 0
    for start in range(0, end, _CHUNK_BYTES):
        checksum = zlib.crc32(file.read(min(_CHUNK_BYTES, end - start)), checksum)
    file.seek(0)
    if checksum != int.from_bytes(trailer[len(_CHECKSUM_MARK) :], 'big'):
        raise _MalformedError('its checksum differs')
    return end


class _Place(NamedTuple):
    """Where the bytes of a tensor, or a part of it, are in a file."""

    dims: tuple[int, ...]
    kind: str
    start: int
    length: int


class _Reader:
    """Read messages field by field; a field never leaves the message that it is in."""

    def __init__(self, file: BinaryIO, *, end: int) -> None:
        self.file = file
        self.end = end

    def tensors(self) -> dict[str, Tensor]:
        """Find all values, then read each tensor at once."""
        places: dict[str, list[_Place]] = {}
        last = None
        for count in range(1 + _MOST_VALUES):
            if self.file.tell() == self.end:
                break
            if count == _MOST_VALUES:
                raise _MalformedError(f'it has more than {_MOST_VALUES:,} values')
            field, _ = self._field(self.end)
            if field != 1:
                raise _MalformedError(f'it has a field {field} where values are')
            tag, place = self._value()
            parts = places.setdefault(tag, [])
            # The parts of a large tensor follow one another.
            if parts and (tag != last or place[:2] != parts[0][:2]):
                raise _MalformedError(f'{tag!r} is in it twice')
            parts.append(place)
            last = tag
        return {tag: self._tensor(tag, parts) for tag, parts in places.items()}

    def _tensor(self, tag: str, parts: list[_Place]) -> Tensor:
        dims, kind = parts[0][:2]
        num_bytes = sum(part.length for part in parts)
        dtype = _TYPES.get(kind)
        if dtype is None:
            raise _MalformedError(f'{tag!r} has the type {kind!r}')
        # A scalar has the dims [0] or none.
        shape = () if dims == (0,) and num_bytes else dims
        if math.prod(shape) * dtype.itemsize != num_bytes:
            raise _MalformedError(f'{tag!r} has the shape {shape} and {num_bytes:,} bytes')
        if not num_bytes:
            return torch.empty(shape, dtype=dtype)
        content = bytearray(num_bytes)
        filled = 0
        for part in parts:
            self.file.seek(part.start)
            target = memoryview(content)[filled : filled + part.length]
            # BinaryIO has no readinto, which buffered files have.
            if self.file.readinto(target) < part.length:  # type: ignore[attr-defined]
                raise _MalformedError('it ends too early')
            filled += part.length
        return torch.frombuffer(content, dtype=dtype).reshape(shape)

    def _value(self) -> tuple[str, _Place]:
        end = self._length(self.end)
        tag = place = None
        while self.file.tell() < end:
            field, _ = self._field(end)
            if field == 1 and tag is None:
                tag = self._text(end)
            elif field == 2 and place is None:
                place = self._tensor_proto(end)
            else:
                raise _MalformedError('it holds a hash table or another thing than tensors')
        if tag is None or place is None:
            raise _MalformedError('a value has no name or no tensor')
        return tag, place

    def _tensor_proto(self, outer: int) -> _Place:
        end = self._length(outer)
        dims: list[int] = []
        kind, start, length = None, None, 0
        # Dims come one by one, or packed, as proto3 writes repeated numbers.
        for _ in range(_MOST_DIMS + 2):
            if self.file.tell() == end:
                break
            field, wire_type = self._field(end, scalar=1)
            if field == 1:
                stop = self._length(end) if wire_type == _BYTES else self.file.tell() + 1
                while self.file.tell() < stop and len(dims) <= _MOST_DIMS:
                    dims.append(self._varint(end))
            elif field == 2 and kind is None:
                kind = self._text(end)
            elif field == 3 and start is None:
                stop = self._length(end)
                start = self.file.tell()
                length = stop - start
                self.file.seek(stop)
            else:
                raise _MalformedError(f'a tensor has a field {field} that is not its own')
        if self.file.tell() != end or len(dims) > _MOST_DIMS or kind is None:
            raise _MalformedError(f'a tensor has no type, or more than {_MOST_DIMS} dimensions')
        return _Place(tuple(dims), kind, start or 0, length)

    def _field(self, end: int, *, scalar: int | None = None) -> tuple[int, int]:
        """Read the number and the wire type of a field; only ``scalar`` may be a number."""
        key = self._varint(end)
        field, wire_type = key >> 3, key & 7
        if wire_type != _BYTES and (wire_type != _VARINT or field != scalar):
            raise _MalformedError(f'field {field} has the wire type {wire_type}')
        return field, wire_type

    def _varint(self, end: int) -> int:
        value = 0
        for shift in range(0, 64, 7):
            byte = self._read(1, end)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise _MalformedError('a number does not end')

    def _length(self, end: int) -> int:
        """Read a length, and return where the field of that length ends."""
        length = self._varint(end)
        stop = self.file.tell() + length
        if stop > end:
            raise _MalformedError('a length leads beyond the end')
        return stop

    def _text(self, end: int) -> str:
        length = self._length(end) - self.file.tell()
        if length > _MOST_NAME_BYTES:
            raise _MalformedError(f'a name has {length:,} bytes')
        try:
            return self._read(length, end).decode()
        except UnicodeDecodeError:
            raise _MalformedError('a name is not text') from None

    def _read(self, length: int, end: int) -> bytes:
        content = self.file.read(length)
        if len(content) < length or self.file.tell() > end:
            raise _MalformedError('it ends too early')
        return content
