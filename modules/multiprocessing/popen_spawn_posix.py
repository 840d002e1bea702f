"""Popen of the spawn method: the child begins as a copy of a pristine interpreter.

The payload (spawn.py) is pickled before anything is started: an object that cannot be pickled starts nothing.
While it is pickled this popen is the thread's spawning popen: reducers pass descriptors with
duplicate_for_child() and objects of the segment with share().
"""

import io
import os

import _pickle as pickle  # the module `pickle` brings re and enum

from . import context, main_code, popen_fork, spawn, warm_modules
from .context import set_spawning_popen

__all__ = ['Popen']


class _DupFd:
    """A descriptor passed to a child that is being started; it has the same number there."""

    def __init__(self, fd):
        self.fd = fd

    def detach(self):
        """The descriptor."""
        return self.fd


class Popen(popen_fork.Popen):
    """Starts `process_obj`'s child when made."""

    method = 'spawn'
    DupFd = _DupFd

    def __init__(self, process_obj):
        self._fds = []
        self._start = None
        super().__init__(process_obj)

    def duplicate_for_child(self, fd):
        """Passes the descriptor to the child; returns its number there."""
        if self._start is not None:
            fd = self._start.add_fd(fd)
        self._fds.append(fd)
        return fd

    @property
    def is_in_session(self):
        """Whether the child will be: it can hold objects of the segment."""
        return self._start is not None

    def share(self, obj):
        """Lets the child hold an object of the segment; called while that object is pickled."""
        if self._start is None:
            raise RuntimeError(
                f'{type(obj).__name__} objects cannot be passed to a program set with set_executable(): '
                'it is not part of this session')
        self._start.share(obj)

    def _launch(self, process_obj):
        data = spawn.get_preparation_data(process_obj._name)
        if self.method == 'spawn' and spawn.foreign_executable() is not None:
            self._launch_program(data, process_obj)
        else:
            self._launch_host(data, process_obj)

    def _launch_host(self, data, process_obj):
        import _pyhost
        if 'init_main_from_path' in data:
            data['main_code'] = main_code.for_child(data['init_main_from_path'])
        parent_end = popen_fork.open_own_end()
        start = None
        try:
            start = self._start = _pyhost.ChildStart(
                self.method, popen_fork.record_name(process_obj), daemon=bool(process_obj.daemon),
                worker=bool(getattr(process_obj, '_pyhost_worker', False)))
            payload = self._payload(data, process_obj, start.add_fd(parent_end))
            with payload.getbuffer() as view:
                child = start.commit(view, self.method == 'spawn' and warm_modules.is_shadowed(data['sys_path']))
        except BaseException:
            if start is not None:
                start.abort()
            raise
        finally:
            self._start = None
            os.close(parent_end)
        self._adopt(child)

    def _payload(self, data, process_obj, parent_sentinel):
        """The start's payload, as spawn.py describes it."""
        file = io.BytesIO(bytes(spawn.HEADER.size))
        file.seek(0, os.SEEK_END)
        self._dump(data, file)
        middle = file.tell()
        self._dump(process_obj, file)
        end = file.tell()
        pickle.dump({'method': self.method, 'fds': self._fds, 'parent_sentinel': parent_sentinel}, file)
        file.seek(0)
        file.write(spawn.HEADER.pack(middle - spawn.HEADER.size, 0, end - middle))
        return file

    def _dump(self, obj, file):
        """Pickles `obj` for the child; an error about a process object says where in it the culprit is."""
        set_spawning_popen(self)
        try:
            context.reduction.dump(obj, file)
        except Exception as error:
            if isinstance(obj, dict):
                raise
            from . import pickle_errors
            explained = pickle_errors.explain(error, obj, parts=_parts_of(obj))
            if explained is error:
                raise
            raise explained from error
        finally:
            set_spawning_popen(None)

    def _launch_program(self, data, process_obj):
        """Starts the program that set_executable() names, by python3's command line."""
        from . import launched_child, resource_tracker
        tracker_fd = resource_tracker.getfd()
        file = io.BytesIO()
        self._dump(data, file)
        self._dump(process_obj, file)
        self._adopt(launched_child.launch(file.getbuffer(), tracker_fd, self._fds))


def _parts_of(process_obj):
    """What pickling a process object pickles, under the names that its maker knows."""
    parts = []
    for name, value in vars(process_obj).items():
        if name == '_args':
            parts += [(f'args[{index}]', argument) for index, argument in enumerate(value)]
        elif name == '_kwargs':
            parts += [(f'kwargs[{key!r}]', argument) for key, argument in value.items()]
        elif name == '_target':
            parts.append(('target', value))
        elif name not in ('_config', '_popen'):
            parts.append((f'self.{name}', value))
    parts.append(('the class', type(process_obj)))
    return parts
