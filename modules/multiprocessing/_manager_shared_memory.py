"""The server of a SharedMemoryManager: removes the blocks made through it when it ends."""

import os

from . import shared_memory
from . import util
from ._manager_server import Server

__all__ = ()


class _SharedMemoryTracker:
    """The names of the blocks; removes them when it goes."""

    def __init__(self, name, segment_names=None):
        self.shared_memory_context_name = name
        self.segment_names = [] if segment_names is None else segment_names

    def register_segment(self, segment_name):
        """Adds a block."""
        util.debug('Register segment %r in pid %s', segment_name, os.getpid())
        self.segment_names.append(segment_name)

    def destroy_segment(self, segment_name):
        """Removes a block from the list and from the system."""
        util.debug('Destroy segment %r in pid %s', segment_name, os.getpid())
        self.segment_names.remove(segment_name)
        segment = shared_memory.SharedMemory(segment_name)
        segment.close()
        segment.unlink()

    def unlink(self):
        """Removes all blocks."""
        for segment_name in self.segment_names[:]:
            self.destroy_segment(segment_name)

    def __del__(self):
        util.debug('Call %s.__del__ in %s', type(self).__name__, os.getpid())
        self.unlink()

    def __getstate__(self):
        return self.shared_memory_context_name, self.segment_names

    def __setstate__(self, state):
        self.__init__(*state)


class SharedMemoryServer(Server):
    """A Server that keeps a list of shared memory blocks for its clients."""

    public = Server.public + ['track_segment', 'release_segment', 'list_segments']

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        address = self.address
        if isinstance(address, bytes):
            address = os.fsdecode(address)  # In the abstract namespace
        self.shared_memory_context = _SharedMemoryTracker(f'shm_{address}_{os.getpid()}')
        util.debug('SharedMemoryServer started by pid %s', os.getpid())

    def create(self, c, typeid, /, *args, **kwargs):
        """As in Server; types whose proxies have `_shared_memory_proxy` are given the list of blocks."""
        if hasattr(self.registry[typeid][-1], '_shared_memory_proxy'):
            kwargs['shared_memory_context'] = self.shared_memory_context
        return super().create(c, typeid, *args, **kwargs)

    def shutdown(self, c):
        """Removes all blocks and ends the server."""
        self.shared_memory_context.unlink()
        return super().shutdown(c)

    def track_segment(self, c, segment_name):
        """Takes charge of a block."""
        self.shared_memory_context.register_segment(segment_name)

    def release_segment(self, c, segment_name):
        """Removes a block."""
        self.shared_memory_context.destroy_segment(segment_name)

    def list_segments(self, c):
        """The names of the blocks."""
        return self.shared_memory_context.segment_names
