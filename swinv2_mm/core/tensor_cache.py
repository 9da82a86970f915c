"""Cache tensors that follow from shapes alone (masks, coordinates), within a memory budget."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable

import torch
from torch import Tensor

from .tracing import is_traced


def is_capturing() -> bool:
    """Whether the operations of this thread are captured as a CUDA graph."""
    return torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()


class TensorCache:
    """Least-recently-used cache with a budget in bytes.

    Shared by all blocks of all models and all threads of a process, so that a constant exists once.

    What is read while a CUDA graph is captured stays for good: the graph reads its memory.

    Args:
        max_bytes: Oldest entries go when the sum of all entries exceeds this.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._entries: OrderedDict[Hashable, Tensor] = OrderedDict()
        self._pinned: set[Hashable] = set()
        self._lock = threading.Lock()

    @property
    def num_bytes(self) -> int:
        """Bytes of all entries."""
        return sum(entry.nbytes for entry in self._entries.values())

    def get(self, key: Hashable, build: Callable[[], Tensor]) -> Tensor:
        """Return the tensor stored under ``key``, calling ``build`` for it the first time."""
        if torch.compiler.is_compiling() or is_traced():
            # A traced tensor is not a real one: it must not outlive its trace. The compiler
            # folds these constants by itself.
            return build()
        with self._lock:
            if is_capturing():
                self._pinned.add(key)
            entry = self._entries.get(key)
            if entry is not None:
                self._entries.move_to_end(key)
                return entry
        # An inference-mode tensor could not be used by a later training step.
        with torch.inference_mode(False), torch.no_grad():
            entry = build()
        # Under a FakeTensorMode even a constant is fake; it must not be met by a real run.
        if type(entry) is not Tensor:
            return entry
        with self._lock:
            # Another thread may have built it meanwhile.
            entry = self._entries.setdefault(key, entry)
            num_bytes = self.num_bytes
            for oldest in list(self._entries):
                if num_bytes <= self.max_bytes:
                    break
                if oldest != key and oldest not in self._pinned:
                    num_bytes -= self._entries.pop(oldest).nbytes
        return entry


# A mask of window 32 has 4 MB; 256 MB hold those of every padding a detection batch meets.
CONSTANTS = TensorCache(max_bytes=256 * 2**20)
# Token numbers are quickly made again: enough for one image of any size, or a data set of one size.
TOKENS = TensorCache(max_bytes=32 * 2**20)
