"""What a child does on its way out.  Runs under pyhost and under python3, whose children by spawn are the oracle.

A child of spawn ends as a program does: threads, exit functions, finalizers, buffers.  pyhost takes no interpreter
apart for it (host/child_exit.h), so what a user sees of that is asked for here.
"""

import os
import sys
import unittest

from script import UNDER_PYHOST, ScriptCase

PRELUDE = '''
import atexit, builtins, ctypes, gc, gzip, logging, logging.handlers, os, sys, tempfile, threading, weakref
import multiprocessing as mp
from multiprocessing import util

class Dying:
    def __init__(self, name): self.name = name
    def __del__(self, write=os.write): write(1, f'del {self.name}\\n'.encode())

class Bare:
    __slots__ = ()
    def __del__(self, write=os.write): write(1, b'del bare\\n')

class Printing:
    def __del__(self): print('printed')

kept = []

def keep(*objects):
    kept.extend(objects)

def run(target, *args):
    process = mp.get_context('spawn').Process(target=target, args=args)
    process.start()
    process.join()
    print('exit code', process.exitcode)

libc = ctypes.CDLL(None)
'''


class ExitTest(ScriptCase):

    def assert_ends(self, target, *lines, code=0, stderr=''):
        """`target`, the body of a function, runs in a child: its output, and that of its end, in any order."""
        body = ''.join(f'    {line}\n' for line in target.splitlines())
        done = self.run_script(f"{PRELUDE}\ndef child():\n{body}\nif __name__ == '__main__':\n    run(child)\n")
        self.assertEqual(sorted(done.stdout.splitlines()), sorted([*lines, f'exit code {code}']), done.stderr)
        if isinstance(stderr, str):
            self.assertEqual(done.stderr, stderr)
        return done

    # Exit functions and threads

    def test_exit_functions_run_last_first(self):
        done = self.assert_ends("atexit.register(print, 'first')\natexit.register(print, 'second')\nprint('run')",
                                'run', 'second', 'first')
        self.assertEqual(done.stdout.split()[:3], ['run', 'second', 'first'])

    def test_exit_function_that_raises_is_reported_and_changes_nothing(self):
        self.assertIn('ZeroDivisionError',
                      self.assert_ends("atexit.register(lambda: 1 / 0)\natexit.register(print, 'x')", 'x', stderr=None).stderr)

    def test_threads_are_waited_for_unless_they_are_daemons(self):
        self.assert_ends('go = threading.Event()\n'
                         "threading.Thread(target=lambda: (go.wait(), print('thread'))).start()\n"
                         'threading.Thread(target=threading.Event().wait, daemon=True).start()\n'
                         'threading.Timer(0.05, go.set).start()', 'thread')

    def test_executor_of_threads_finishes_its_calls(self):
        self.assert_ends('from concurrent.futures import ThreadPoolExecutor\n'
                         "executor = ThreadPoolExecutor(1)\nexecutor.submit(os.getpid)\nexecutor.submit(print, 'call')", 'call')

    def test_children_are_waited_for(self):
        self.assert_ends("mp.get_context('spawn').Process(target=print, args=('grandchild',)).start()", 'grandchild')

    def test_exit_codes(self):
        self.assert_ends("keep(Dying('x'))\nsys.exit(7)", 'del x', code=7)
        self.assert_ends("keep(Dying('x'))\nos._exit(8)", code=8)
        self.assert_ends("keep(Dying('x'))\nraise ValueError", 'del x', code=1, stderr=None)

    # Objects that die with the program

    def test_objects_in_globals_are_finalized(self):
        self.assert_ends("globals()['mine'] = Dying('global')\nkeep(Dying('in a list'))",
                         'del global', 'del in a list')

    def test_objects_in_cycles_are_finalized(self):
        self.assert_ends("gc.disable()\nfirst, second = Dying('first'), Dying('second')\n"
                         'first.other, second.other = second, first', 'del first', 'del second')

    def test_objects_that_the_collector_does_not_know_are_finalized(self):
        self.assert_ends('keep(Bare())', 'del bare')

    def test_objects_in_modules_of_the_standard_library_are_finalized(self):
        self.assert_ends("os.kept = Dying('os')\nlogging.kept = [Dying('logging')]", 'del os', 'del logging')

    def test_object_in_sys_or_builtins_is_finalized(self):
        # python3 has no `print` left for those of builtins.
        self.assert_ends("class Quiet:\n    def __del__(self, write=os.write): write(1, b'quiet\\n')\n"
                         'sys.kept = Quiet()\nbuiltins.kept = Quiet()', 'quiet', 'quiet')

    def test_finalizer_that_raises_is_reported_and_changes_nothing(self):
        self.assertIn('ZeroDivisionError', self.assert_ends(
            "class Bad:\n    def __del__(self): 1 / 0\nos.kept = Bad()\nkeep(Dying('x'))", 'del x', stderr=None).stderr)

    def test_finalizers_use_files_streams_and_modules(self):
        self.assert_ends("class Writer:\n    def __del__(self, file=open(1, 'w', closefd=False)):\n"
                         "        file.write('written\\n')\nkeep(Writer())", 'written')

    @unittest.skipUnless(UNDER_PYHOST or sys.version_info < (3, 14), 'python3 has no builtins left by then')
    def test_finalizers_of_objects_in_globals_print(self):
        # From 3.14 on a hook for forks keeps python3's package, and with it the target's globals, until the very end.
        self.assert_ends("keep(Printing())", 'printed')

    def test_generators_are_closed(self):
        self.assert_ends("def generate(write=os.write):\n    try:\n        yield\n    finally:\n        write(1, b'finally\\n')\n"
                         'generator = generate()\nnext(generator)\nkeep(generator)', 'finally')

    def test_weakref_finalize(self):
        self.assert_ends("keep(Dying('x'))\nweakref.finalize(kept[0], print, 'finalize')", 'finalize', 'del x')

    def test_finalizers_of_the_package(self):
        self.assert_ends("keep(Dying('x'))\nutil.Finalize(None, print, ('with priority',), exitpriority=1)\n"
                         "util.Finalize(kept[0], print, ('of an object',), exitpriority=2)\n"
                         "util.Finalize(kept[0], print, ('of one that outlives the program',))",
                         'with priority', 'of an object', 'del x')

    def test_daemon_threads_change_nothing(self):
        self.assert_ends("threading.Thread(target=threading.Event().wait, daemon=True).start()\nkeep(Dying('x'))", 'del x')

    # Buffers and files

    def assert_writes(self, target, read, expected):
        self.assert_ends(target.replace('PATH', repr(os.path.join(self.folder, 'out'))))
        with read(os.path.join(self.folder, 'out'), 'rt') as file:
            self.assertEqual(file.read(), expected)

    def test_text_left_in_an_open_file_is_written(self):
        self.assert_writes("keep(open(PATH, 'w'))\nkept[0].write('text')", open, 'text')

    def test_bytes_left_in_an_open_file_are_written(self):
        self.assert_writes("keep(open(PATH, 'wb'))\nkept[0].write(b'bytes')", open, 'bytes')

    def test_text_left_in_a_file_of_a_standard_module_is_written(self):
        self.assert_writes("os.kept = open(PATH, 'w')\nos.kept.write('text')", open, 'text')

    def test_logging_is_shut_down(self):
        self.assert_writes("handler = logging.handlers.MemoryHandler(100, target=logging.FileHandler(PATH))\n"
                           "logging.getLogger().addHandler(handler)\nlogging.warning('logged')", open, 'logged\n')

    def test_output_that_replaced_a_standard_stream_is_flushed(self):
        self.assert_writes("sys.stdout = open(PATH, 'w')\nprint('x', end='')", open, 'x')

    def test_temporary_folder_is_removed(self):
        self.assert_ends('import warnings\nwarnings.simplefilter("ignore")\n'
                         f'keep(tempfile.TemporaryDirectory(dir={self.folder!r}))')
        self.assertEqual([name for name in os.listdir(self.folder) if name.startswith('tmp')], [])

    def test_streams_that_cannot_be_flushed_show_in_the_exit_code(self):
        done = self.run_script(PRELUDE + "\ndef child():\n    sys.stdout = open('/dev/full', 'w')\n    print('x')\n"
                               "if __name__ == '__main__':\n    run(child)\n")
        self.assertIn('No space left', done.stderr)
        self.assertEqual(done.stdout, 'exit code 1\n' if 'OSError' in done.stderr.split('Traceback')[0] else done.stdout)
        self.assertNotEqual(done.stdout, 'exit code 0\n')

    # What C code left to be done

    def test_c_streams_are_flushed(self):
        self.assert_ends("libc.printf(b'from C\\n')", 'from C')

    def test_c_exit_functions_run(self):
        # The text is C's: Python's bytes are gone by then.
        self.assert_ends("libc.strdup.restype = ctypes.c_void_p\n"
                         "libc.__cxa_atexit(libc.puts, ctypes.c_void_p(libc.strdup(b'C exit')), None)", 'C exit')

    def test_main_thread_that_c_code_ends(self):
        done = self.run_script(PRELUDE + "\ndef leave(): libc.pthread_exit(None)\n"
                               "if __name__ == '__main__':\n    for method in mp.get_all_start_methods():\n"
                               '        process = mp.get_context(method).Process(target=leave)\n'
                               '        process.start()\n        process.join()\n        print(method, process.exitcode)\n')
        self.assertEqual(sorted(done.stdout.splitlines()), ['fork 0', 'forkserver 0', 'spawn 0'], done.stderr)

    def test_exit_functions_of_extension_modules_run(self):
        self.assert_ends('ctypes.pythonapi.Py_AtExit(libc.abort)', code=-6)

    def test_object_held_by_c_code_whose_modules_are_gone_says_nothing(self):
        # As torch's storages: kept by an extension, released by a function of a module that an extension keeps, too.
        for name, text in (('low', 'class Thing: pass\ndef free(): Thing.x = 1\n'),
                           ('high', 'from low import free\nclass Ref:\n    def __del__(self): free()\n')):
            with open(os.path.join(self.folder, name + '.py'), 'w') as file:
                file.write(text)
        self.assert_ends(f"sys.path.insert(0, {self.folder!r})\nimport low, high\nref = high.Ref()\n"
                         "for held in (low, ref): ctypes.pythonapi.Py_IncRef(ctypes.py_object(held))")

    def test_subinterpreter_left_behind_does_not_matter(self):
        self.assert_ends("try:\n    import _xxsubinterpreters as interpreters\nexcept ImportError:\n"
                         "    import _interpreters as interpreters\ninterpreters.create()\nkeep(Dying('x'))", 'del x',
                         stderr=None)


if __name__ == '__main__':
    unittest.main()
