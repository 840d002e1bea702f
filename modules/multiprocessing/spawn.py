"""What a child of the spawn and forkserver methods is told, and how it gets ready to be that child.

Parent: get_preparation_data() says what python3's child would be told; Popen (popen_spawn_posix.py) pickles it
with the process object into one payload.  Child: the native bootstrap calls _child_main(), which reads the
payload, prepares the interpreter, imports the main module and runs the process object.

Payload:  u32 length of the preparation data | u32 reserved | u64 length of the process object
          | preparation data | process object | extras, each a pickle.  Extras are known last: the descriptors
          passed along, and the one that tells of the parent's end.

_main, spawn_main, get_command_line, is_forking, freeze_support: python3's way, through a pipe and a command
line.  Third parties start children by it, and so do we for a program set with set_executable().
"""

import os
import struct
import sys

import _pickle as pickle  # the module `pickle` brings re and enum

from . import context, guard, main_code, main_module, process, util
from .context import get_spawning_popen, set_spawning_popen  # noqa: F401 (names known here)

__all__ = ['_main', 'freeze_support', 'set_executable', 'get_executable',
           'get_preparation_data', 'get_command_line', 'import_main_path']

WINEXE = False
WINSERVICE = False

HEADER = struct.Struct('=IIQ')

_check_not_importing_main = guard.check

# ---- The program ---------------------------------------------------------------------------------------------

_python_exe = None


def set_executable(exe):
    """The program that children of the spawn method run; None takes the setting back."""
    global _python_exe
    _python_exe = None if exe is None else os.fsencode(exe)


def get_executable():
    """The program that children of the spawn method run, as bytes."""
    return _python_exe


set_executable(sys.executable)


def foreign_executable():
    """The program set by set_executable(), if it is another one than this; else None."""
    chosen = _python_exe
    if not chosen or not sys.executable or chosen == os.fsencode(sys.executable):
        return None
    try:
        if os.path.samefile(chosen, sys.executable):
            return None
    except OSError:
        pass
    return chosen


# ---- python3's command line ----------------------------------------------------------------------------------

def is_forking(argv):
    """Whether this command line is that of a child."""
    return len(argv) >= 2 and argv[1] == '--multiprocessing-fork'


def freeze_support():
    """In a child started by python3's command line: runs the process object, and ends."""
    if not is_forking(sys.argv):
        return
    arguments = {}
    for argument in sys.argv[2:]:
        name, value = argument.split('=')
        arguments[name] = None if value == 'None' else int(value)
    spawn_main(**arguments)
    sys.exit()


def get_command_line(**kwds):
    """The command line that starts a child which reads its payload from a pipe; see spawn_main()."""
    arguments = [f'{name}={value!r}' for name, value in kwds.items()]
    if getattr(sys, 'frozen', False):
        return [sys.executable, '--multiprocessing-fork', *arguments]
    program = ('from multiprocessing.spawn import spawn_main; '
               f'spawn_main({", ".join(arguments)})')
    return [get_executable(), *util._args_from_interpreter_flags(),
            '-c', program, '--multiprocessing-fork']


def spawn_main(pipe_handle, parent_pid=None, tracker_fd=None):
    """A child's program: reads preparation data and process object from a pipe, runs it, exits."""
    assert is_forking(sys.argv), 'Not forking'
    from . import resource_tracker
    resource_tracker._resource_tracker._fd = tracker_fd
    sys.exit(_main(pipe_handle, os.dup(pipe_handle)))


def _main(fd, parent_sentinel):
    with os.fdopen(fd, 'rb', closefd=True) as from_parent:
        process.current_process()._inheriting = True
        try:
            prepare(pickle.load(from_parent))
            self = pickle.load(from_parent)
        finally:
            del process.current_process()._inheriting
    return self._bootstrap(parent_sentinel)


# ---- In the parent -------------------------------------------------------------------------------------------

def get_preparation_data(name):
    """What a child has to know before it can unpickle its process object."""
    guard.check()
    current = process.current_process()
    data = {
        'log_to_stderr': util._log_to_stderr,
        'authkey': current.authkey,
        'name': name,
        'sys_path': _absolute_sys_path(),
        'sys_argv': sys.argv,
        'orig_dir': process.ORIGINAL_DIR,
        'dir': os.getcwd(),
        'start_method': context._default_context.get_start_method(allow_none=True),
        'start_method_chosen': context._default_context._chosen,
    }
    if util._logger is not None:
        data['log_level'] = util._logger.getEffectiveLevel()
    data.update(main_module.describe())
    return data


def _absolute_sys_path():
    path = sys.path.copy()
    if '' in path:
        path[path.index('')] = process.ORIGINAL_DIR
    return path


# ---- In the child --------------------------------------------------------------------------------------------

old_main_modules = []


def prepare(data):
    """Makes this interpreter one in which the parent's process object can be unpickled."""
    current = process.current_process()
    if 'name' in data:
        current.name = data['name']
    if 'authkey' in data:
        current.authkey = data['authkey']
    if data.get('log_to_stderr'):
        util.log_to_stderr()
    if 'log_level' in data:
        util.get_logger().setLevel(data['log_level'])
    if 'sys_path' in data:
        sys.path = data['sys_path']
    if 'sys_argv' in data:
        sys.argv = data['sys_argv']
    if 'dir' in data:
        os.chdir(data['dir'])
    if 'orig_dir' in data:
        process.ORIGINAL_DIR = data['orig_dir']
    if 'start_method' in data:
        context._default_context.set_start_method(data['start_method'], force=True)
        # Sent by python3's own children, too, which know no difference.
        context._default_context._chosen = data.get('start_method_chosen', True)
    _import_main(data)


def _import_main(data):
    chosen = data.get('start_method_chosen', True)
    if 'init_main_from_name' in data:
        _fixup_main_from_name(data['init_main_from_name'], chosen, data)
    elif 'init_main_from_path' in data:
        _fixup_main_from_path(data['init_main_from_path'], chosen, data.get('main_code'))
    elif 'main_source' in data:
        _become_main(main_module.LazyMainModule({'main_source': data['main_source']}))


def _fixup_main_from_name(mod_name, chosen=True, data=None):
    current_main = sys.modules['__main__']
    if getattr(getattr(current_main, '__spec__', None), 'name', None) == mod_name:
        return  # a fork server has imported it
    if mod_name == '__main__' or mod_name.endswith('.__main__'):
        # Only ever meant to be the program, so it is not imported unless something of it is needed.
        entries = {key: (data or {})[key] for key in ('init_main_from_name', 'main_file') if key in (data or {})}
        _become_main(main_module.LazyMainModule({'init_main_from_name': mod_name, **entries}))
        return
    old_main_modules.append(current_main)
    _become_main(main_module.run_name(mod_name, chosen=chosen))


def _fixup_main_from_path(main_path, chosen=True, handed_on=None):
    current_main = sys.modules['__main__']
    # IPython's launcher has no guard in some versions, and defines nothing that a child needs.
    if os.path.splitext(os.path.basename(main_path))[0] == 'ipython':
        return
    if getattr(current_main, '__file__', None) == main_path:
        return  # a fork server has imported it
    old_main_modules.append(current_main)
    _become_main(main_module.run_path(main_path, chosen=chosen, code=main_code.load(handed_on, main_path)))


def _become_main(module):
    sys.modules['__main__'] = sys.modules['__mp_main__'] = module


def import_main_path(main_path):
    """Makes the script at `main_path` the main module of this process."""
    _fixup_main_from_path(main_path)


def _child_main():
    """The life of a child: called by its native bootstrap, which ends the process with the code returned."""
    from . import child_main
    return child_main.run()
