"""The package as a whole: what it exports, what it loads, and that it is the one that should run."""

import json
import os
import subprocess
import sys
import sysconfig
import unittest

from script import UNDER_PYHOST, ScriptCase, run

PRELOADS_MAIN = not UNDER_PYHOST and sys.version_info >= (3, 14)


class ImportTest(ScriptCase):
    def loaded(self, statement):
        """The modules that a statement loads, {name: file}."""
        outcome = run('-c', f'''if 1:
            import json, sys
            {statement}
            print(json.dumps({{name: getattr(module, '__file__', None) for name, module in sys.modules.items()}}))
            ''')
        self.assertEqual(0, outcome.code, outcome)
        return json.loads(outcome.stdout)

    @unittest.skipUnless(UNDER_PYHOST, 'asks whether the drop-in is there')
    def test_nothing_of_the_standard_library_package_is_loaded(self):
        package = os.path.join(sysconfig.get_path('stdlib'), 'multiprocessing')
        loaded = self.loaded('''
            import multiprocessing.pool, multiprocessing.managers, multiprocessing.connection, multiprocessing.dummy
            import multiprocessing.sharedctypes, multiprocessing.shared_memory, multiprocessing.popen_forkserver
            import multiprocessing.queues, multiprocessing.synchronize, multiprocessing.resource_sharer''')
        ours = [file for name, file in loaded.items() if name.startswith('multiprocessing')]
        self.assertGreater(len(ours), 15)
        for file in ours:
            self.assertFalse(file.startswith(package + os.sep), file)

    @unittest.skipUnless(UNDER_PYHOST, 'python3 loads more')
    def test_importing_the_package_is_cheap(self):
        plain, more = self.loaded('pass'), self.loaded('import multiprocessing')
        for name in ('socket', 'pickle', 'subprocess', 'logging', 'signal', 'tempfile'):
            if name not in plain:
                self.assertNotIn(name, more)

    def test_lazy_names_are_there(self):
        outcome = run('-c', '''if 1:
            import multiprocessing
            from multiprocessing import *
            from multiprocessing import reduction
            from multiprocessing.context import reduction as other
            assert reduction is other and multiprocessing.reducer is reduction and reducer is reduction
            from multiprocessing.process import _exitcode_to_name
            assert _exitcode_to_name[-9] == '-SIGKILL'
            assert not hasattr(multiprocessing, 'nonsense')
            ''')
        self.assertEqual((0, ''), (outcome.code, outcome.stderr))

    def test_pickling_a_shared_object_by_itself_names_it(self):
        outcome = run('-c', '''if 1:
            import multiprocessing, pickle
            for shared in (multiprocessing.Value('i'), multiprocessing.Array('i', 3), multiprocessing.Lock(),
                           multiprocessing.Semaphore(), multiprocessing.Condition(), multiprocessing.Queue(),
                           multiprocessing.JoinableQueue(), multiprocessing.SimpleQueue()):
                try:
                    pickle.dumps(shared)
                except RuntimeError as error:
                    print(error)
            ''')
        names = ('Synchronized', 'SynchronizedArray', 'Lock', 'Semaphore', 'Condition', 'Queue', 'JoinableQueue', 'SimpleQueue')
        self.assert_printed(outcome, *(f'{name} objects should only be shared between processes through inheritance'
                                       for name in names))

    @unittest.skipUnless(UNDER_PYHOST, 'compares with python3')
    def test_exports_what_the_standard_library_exports(self):
        code = 'import multiprocessing; print(*sorted(multiprocessing.__all__))'
        oracle = os.environ.get('PYHOST_ORACLE', '/usr/bin/python3')
        expected = subprocess.run([oracle, '-c', code], capture_output=True, text=True, check=True).stdout
        self.assertEqual(expected, run('-c', code).stdout)

    @unittest.skipUnless(UNDER_PYHOST, 'asks for our files')
    def test_every_module_says_what_it_exports(self):
        import multiprocessing
        folder = os.path.dirname(multiprocessing.__file__)
        for name in os.listdir(folder):
            if name.endswith('.py') and name != 'popen_spawn_win32.py':
                with open(os.path.join(folder, name)) as file:
                    self.assertIn('\n__all__ = ', file.read(), name)

    def test_windows_popen_is_refused_clearly(self):
        outcome = run('-c', 'import multiprocessing.popen_spawn_win32')
        self.assertEqual(1, outcome.code)


class ContextTest(unittest.TestCase):
    def test_methods(self):
        import multiprocessing
        self.assertEqual({'spawn', 'fork', 'forkserver'}, set(multiprocessing.get_all_start_methods()))
        for wrong in ('nonsense', '', 5):
            with self.assertRaises(ValueError):
                multiprocessing.get_context(wrong)
        context = multiprocessing.get_context('spawn')
        self.assertIs(context, context.get_context())
        with self.assertRaises(ValueError):
            context.set_start_method('fork')

    def test_choice_is_made_once(self):
        outcome = run('-c', '''if 1:
            import multiprocessing
            assert multiprocessing.get_start_method(allow_none=True) is None
            multiprocessing.set_start_method('fork')
            assert multiprocessing.get_start_method() == 'fork'
            try:
                multiprocessing.set_start_method('spawn')
            except RuntimeError as error:
                print(error)
            multiprocessing.set_start_method('spawn', force=True)
            multiprocessing.set_start_method(None, force=True)
            assert multiprocessing.get_start_method(allow_none=True) is None
            ''')
        self.assertEqual((0, 'context has already been set\n', ''), (outcome.code, outcome.stdout, outcome.stderr))

    @unittest.skipUnless(UNDER_PYHOST, 'python3 has another default')
    def test_default_is_spawn(self):
        self.assertEqual('spawn\n', run('-c', 'import multiprocessing; print(multiprocessing.get_start_method())').stdout)


class ExecutableTest(ScriptCase):
    def test_program_of_spawn_children(self):
        """set_executable() with a program of one's own: it is started, by python3's command line."""
        program = self.write('program', f'''\
            #!/bin/sh
            PROGRAM_SAYS=hello exec {sys.executable} "$@"
            ''')
        os.chmod(program, 0o755)
        outcome = self.run_script('''\
            import multiprocessing, os, sys
            def worker(conn):
                conn.send((os.environ.get('PROGRAM_SAYS'), multiprocessing.parent_process().is_alive()))
                sys.exit(3)
            if __name__ == '__main__':
                multiprocessing.set_start_method('spawn')
                multiprocessing.set_executable(sys.argv[1])
                here, there = multiprocessing.Pipe()
                child = multiprocessing.Process(target=worker, args=(there,))
                child.start()
                print(*here.recv())
                child.join()
                print(child.exitcode)
            ''', program)
        self.assert_printed(outcome, 'hello True', '3')


class ForkServerTest(ScriptCase):
    """The names of the fork server that tests and third parties use."""

    def test_child_that_reads_its_orders_from_a_pipe(self):
        outcome = self.run_script('''\
            import multiprocessing, os, sys
            from multiprocessing import context, forkserver, reduction, resource_tracker, spawn
            def work(parent):
                print('parent', multiprocessing.parent_process().pid == parent, flush=True)
                sys.exit(4)
            if __name__ == '__main__':
                multiprocessing.set_start_method('forkserver')
                child = multiprocessing.Process(target=work, args=(os.getpid(),))
                status, data = forkserver.connect_to_new_process([])
                context.set_spawning_popen('somebody')
                with open(data, 'wb') as file:
                    reduction.dump(spawn.get_preparation_data('a name'), file)
                    reduction.dump(child, file)
                context.set_spawning_popen(None)
                print('pid', forkserver.read_signed(status) > 0)
                print('code', forkserver.read_signed(status))
            ''')
        self.assert_printed(outcome, 'parent True', 'pid True', 'code 4')

    def test_server_can_be_stopped_and_starts_again(self):
        outcome = self.run_script('''\
            import multiprocessing
            from multiprocessing.forkserver import _forkserver
            if __name__ == '__main__':
                multiprocessing.set_start_method('forkserver')
                print(_forkserver._forkserver_pid)
                _forkserver.ensure_running()
                first = _forkserver._forkserver_pid
                _forkserver.ensure_running()
                print(first == _forkserver._forkserver_pid)
                _forkserver._stop()
                print(_forkserver._forkserver_pid)
                child = multiprocessing.Process(target=print, args=('child',))
                child.start()
                child.join()
                print(first != _forkserver._forkserver_pid)
            ''')
        self.assert_printed(outcome, 'None', 'True', 'None', 'child', 'True')

    @unittest.skipUnless(UNDER_PYHOST or sys.version_info >= (3, 14), 'older servers do not know sys.argv')
    def test_main_module_is_preloaded_with_the_programs_arguments(self):
        outcome = self.run_script('''\
            import multiprocessing, sys
            print(len(sys.argv), sys.argv[-1], flush=True)
            def worker():
                print('worker', sys.argv[-1])
            if __name__ == '__main__':
                sys.argv += ['x' * 50] * 5000 + ['last']  # more than a single argument could hold
                multiprocessing.set_start_method('forkserver')
                child = multiprocessing.Process(target=worker)
                child.start()
                child.join()
            ''', 'first')
        self.assert_printed(outcome, '2 first', '5003 last', 'worker last')

    def test_server_is_not_waited_for_where_none_may_serve(self):
        # A server of the root's process group cannot fork children for another: they are launched.
        outcome = self.run_script('''\
            import multiprocessing, os
            from multiprocessing.forkserver import _forkserver
            if __name__ == '__main__':
                multiprocessing.set_start_method('forkserver')
                multiprocessing.Lock()
                os.setpgid(0, 0)
                _forkserver.ensure_running()
                child = multiprocessing.Process(target=print, args=('child',))
                child.start()
                child.join()
            ''')
        self.assert_printed(outcome, 'child')

    @unittest.skipUnless(UNDER_PYHOST or sys.version_info >= (3, 14), 'older servers do not know sys.path')
    def test_preloaded_modules_are_loaded_once(self):
        self.write('slow.py', "print('loading', flush=True)\n")
        outcome = self.run_script('''\
            import multiprocessing
            def work():
                import slow
                print('working', slow.__name__, flush=True)
            if __name__ == '__main__':
                multiprocessing.set_start_method('forkserver')
                multiprocessing.set_forkserver_preload(['slow', 'no.such.module'])
                for _ in range(3):
                    child = multiprocessing.Process(target=work)
                    child.start()
                    child.join()
            ''')
        self.assert_printed(outcome, 'loading', *['working slow'] * 3)

    @unittest.skipIf(PRELOADS_MAIN, "python3's own server imports the main module from 3.14 on, and hangs or dies of such a one")
    def test_main_module_that_starts_a_thread_is_imported_by_each_child(self):
        outcome = self.run_script('''\
            import multiprocessing
            from concurrent.futures import ThreadPoolExecutor
            executor = ThreadPoolExecutor(1)
            executor.submit(int).result()
            def work():
                print('working', executor.submit(abs, -1).result(), flush=True)
            if __name__ == '__main__':
                multiprocessing.set_start_method('forkserver')
                for _ in range(2):
                    child = multiprocessing.Process(target=work)
                    child.start()
                    child.join()
                with multiprocessing.Pool(1) as pool:
                    print(pool.map(abs, [-2]))
            ''')
        self.assert_printed(outcome, 'working 1', 'working 1', '[2]')

    @unittest.skipIf(PRELOADS_MAIN, "python3's own server imports the main module from 3.14 on, and hangs or dies of such a one")
    def test_main_module_that_ends_the_program_ends_the_child(self):
        outcome = self.run_script('''\
            import multiprocessing, sys
            if __name__ != '__main__':
                sys.exit()
            multiprocessing.set_start_method('forkserver')
            child = multiprocessing.Process(target=print, args=('never',))
            child.start()
            child.join()
            print(child.exitcode)
            ''')
        self.assert_printed(outcome, '1')

    def test_preload_takes_names(self):
        import multiprocessing
        for wrong in ([5], [None, 'name']):
            if UNDER_PYHOST or sys.version_info >= (3, 14):
                with self.assertRaises(TypeError):
                    multiprocessing.set_forkserver_preload(wrong)


class ExitTest(ScriptCase):
    """What the end of the main process means to its children."""

    def test_daemons_end_and_others_are_joined(self):
        outcome = self.run_script('''\
            import multiprocessing, time
            def sleep():
                time.sleep(300)
            def work():
                time.sleep(0.3)
                print('worked', flush=True)
            if __name__ == '__main__':
                multiprocessing.Process(target=sleep, daemon=True).start()
                multiprocessing.Process(target=work).start()
                print('main ends', flush=True)
            ''')
        self.assert_printed(outcome, 'main ends', 'worked')

    def test_interrupt_in_the_foreground_is_told_once(self):
        import signal
        path = self.write('script.py', '''\
            import multiprocessing, sys, time
            def sleep(conn):
                conn.send('ready')
                time.sleep(300)
            if __name__ == '__main__':
                here, there = multiprocessing.Pipe()
                children = [multiprocessing.Process(target=sleep, args=(there,)) for _ in range(3)]
                for child in children:
                    child.start()
                for child in children:
                    here.recv()
                print('ready', flush=True)
                for child in children:
                    child.join()
            ''')
        child = subprocess.Popen([sys.executable, path], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                 start_new_session=True)
        self.assertEqual('ready\n', child.stdout.readline())
        os.killpg(child.pid, signal.SIGINT)
        _, errors = child.communicate(timeout=30)
        self.assertEqual(-signal.SIGINT, child.returncode)
        if UNDER_PYHOST:
            self.assertEqual(1, errors.count('KeyboardInterrupt'), errors)

    def test_fork_with_threads_warns(self):
        outcome = self.run_script('''\
            import multiprocessing, threading
            if __name__ == '__main__':
                event = threading.Event()
                threading.Thread(target=event.wait, name='the waiting one').start()
                child = multiprocessing.get_context('fork').Process(target=print, args=('child',))
                child.start()
                child.join()
                event.set()
            ''')
        self.assert_printed(outcome, 'child')
        if UNDER_PYHOST:
            self.assertIn('script.py:6: RuntimeWarning: MainProcess', outcome.stderr)
            self.assertIn('the waiting one', outcome.stderr)

    def test_hooks_around_a_fork_wait_for_threads_that_use_queues(self):
        outcome = self.run_script('''\
            import os, queue, threading
            asked, done = queue.SimpleQueue(), queue.SimpleQueue()
            def let_the_other_use_queues():
                asked.put(None)
                done.get(timeout=20)
            os.register_at_fork(before=let_the_other_use_queues, after_in_parent=let_the_other_use_queues)
            import multiprocessing
            context = multiprocessing.get_context('fork')
            def use_queues():
                while asked.get() is None:
                    done.put(context.Queue().close())
            if __name__ == '__main__':
                first = context.Queue()
                threading.Thread(target=use_queues).start()
                child = context.Process(target=print, args=('child',))
                child.start()
                child.join()
                asked.put('no more')
            ''')
        self.assert_printed(outcome, 'child')

    @unittest.skipUnless(UNDER_PYHOST, 'python3 has this from 3.12 on')
    def test_objects_of_the_fork_context_go_to_no_other_start_method(self):
        outcome = self.run_script('''\
            import multiprocessing
            if __name__ == '__main__':
                fork = multiprocessing.get_context('fork')
                for method in 'spawn', 'forkserver', 'fork':
                    context = multiprocessing.get_context(method)
                    for name in 'Lock', 'RLock', 'Semaphore', 'Condition', 'Event', 'Queue', 'JoinableQueue', 'SimpleQueue':
                        child = context.Process(target=id, args=(getattr(fork, name)(),))
                        try:
                            child.start()
                        except RuntimeError as error:
                            print(method, name, 'created in a fork context' in str(error))
                        else:
                            child.join()
                            print(method, name, child.exitcode)
                child = fork.Process(target=id, args=(multiprocessing.get_context('spawn').Lock(),))
                child.start()
                child.join()
                print(child.exitcode)
            ''')
        names = 'Lock', 'RLock', 'Semaphore', 'Condition', 'Event', 'Queue', 'JoinableQueue', 'SimpleQueue'
        self.assert_printed(outcome, *(f'{method} {name} True' for method in ('spawn', 'forkserver') for name in names),
                            *(f'fork {name} 0' for name in names), '0')

    def test_logging(self):
        outcome = self.run_script('''\
            import logging, multiprocessing
            def work():
                multiprocessing.get_logger().warning('from the child')
            if __name__ == '__main__':
                multiprocessing.set_start_method('spawn')
                multiprocessing.log_to_stderr(logging.INFO)
                child = multiprocessing.Process(target=work, name='Worker')
                child.start()
                child.join()
            ''')
        self.assertIn('[WARNING/Worker] from the child', outcome.stderr)
        self.assertIn('[INFO/Worker] process exiting with exitcode 0', outcome.stderr)
        if UNDER_PYHOST:
            self.assertRegex(outcome.stderr, r'\[INFO/MainProcess\] process Worker \(pid \d+\) ended: exited with code 0')


if __name__ == '__main__':
    unittest.main()
