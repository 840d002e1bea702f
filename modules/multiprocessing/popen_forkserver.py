"""Popen of the forkserver method: the child begins as a copy of a server with the preloaded modules."""

from . import forkserver, popen_spawn_posix

__all__ = ['Popen']


class _DupFd:
    """A descriptor passed to a child that is being started: its place among the passed ones."""

    def __init__(self, ind):
        self.ind = ind

    def detach(self):
        """The descriptor."""
        return forkserver.get_inherited_fds()[self.ind]


class Popen(popen_spawn_posix.Popen):
    """Starts `process_obj`'s child when made."""

    method = 'forkserver'
    DupFd = _DupFd

    def duplicate_for_child(self, fd):
        """Passes the descriptor to the child; returns its place among the passed ones."""
        super().duplicate_for_child(fd)
        return len(self._fds) - 1

    def _launch(self, process_obj):
        forkserver.configure_server()
        super()._launch(process_obj)
