"""Blocks of the session's segment for shared ctypes objects.

Each block is a piece of segment memory of its own: it can be sent to other processes, and it is freed when the last
process that has it is done with it, whichever that is.  (python3 cuts blocks out of memory-mapped files, and a block
is used again when its creator is done with it.)  `Heap` only keeps count.
"""

import os
import sys
import threading

import _pyhost

from . import util

__all__ = ['BufferWrapper']


class Arena:
    """The memory of one block, at least `size` bytes; picklable for processes of the session."""

    def __init__(self, size):
        self.size = size
        self.buffer = _pyhost.Memory(size)


class Heap:
    """The blocks that this process has created and not yet given back, as (arena, start, stop).

    Thread-safe.  `free` may be called by the garbage collector at any point, also inside `malloc` on the same thread.
    """

    _alignment = 8

    def __init__(self, size=0):
        self._lock = threading.Lock()
        self._lastpid = os.getpid()
        self._arenas = []
        self._allocated_blocks = {}     # arena -> {(start, stop)}
        self._len_to_seq = {}           # Free blocks: there are none, memory goes back to the segment at once.
        self._pending_free_blocks = []  # Freed while the lock was held
        self._n_mallocs = 0
        self._n_frees = 0

    def malloc(self, size):
        """A new block of at least `size` bytes, filled with zeros."""
        _check_size(size)
        if os.getpid() != self._lastpid:
            self.__init__()  # Forked: the blocks are the parent's.
        length = -(-max(size, 1) // self._alignment) * self._alignment
        arena = Arena(length)
        with self._lock:
            self._n_mallocs += 1
            self._free_pending_blocks()
            self._arenas.append(arena)
            self._allocated_blocks[arena] = {(0, length)}
        return arena, 0, length

    def free(self, block):
        """Gives back a block of this process's."""
        if os.getpid() != self._lastpid:
            raise ValueError(f'My pid ({os.getpid()}) is not last pid {self._lastpid}')
        self._pending_free_blocks.append(block)
        if self._lock.acquire(blocking=False):
            try:
                self._free_pending_blocks()
            finally:
                self._lock.release()

    def _free_pending_blocks(self):
        while self._pending_free_blocks:
            arena, _, _ = self._pending_free_blocks.pop()
            self._n_frees += 1
            self._arenas.remove(arena)
            del self._allocated_blocks[arena]


class BufferWrapper:
    """A block of shared memory, picklable for processes of the session."""

    _heap = Heap()

    def __init__(self, size):
        _check_size(size)
        heap = BufferWrapper._heap
        block = heap.malloc(size)
        self._state = block, size
        util.Finalize(self, heap.free, args=(block,))

    def create_memoryview(self):
        """The bytes of the block."""
        (arena, start, _), size = self._state
        return memoryview(arena.buffer)[start:start + size]


def _check_size(size):
    if size < 0:
        raise ValueError(f'Size {size:n} out of range')
    if size >= sys.maxsize:
        raise OverflowError(f'Size {size:n} too large')
