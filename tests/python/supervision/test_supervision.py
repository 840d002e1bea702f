"""The supervisor, the fork servers, and what survives the death of each."""

import os
import subprocess
import sys
import unittest

from session import SessionCase, marked

METHODS = ('spawn', 'forkserver', 'fork')
SERVED = ('spawn', 'forkserver')


def with_methods(*methods):
    """The test is run once for each start method, as a subtest."""
    def decorate(test):
        def run(self):
            for method in methods:
                with self.subTest(method=method):
                    test(self, method)
        run.__name__ = test.__name__
        return run
    return decorate


class SupervisorTest(SessionCase):

    @with_methods(*METHODS)
    def test_session_of_a_finished_program_leaves_no_process(self, method):
        self.run_script('', '''
            process = start(nothing)
            process.join()
            assert process.exitcode == 0
        ''', method)

    @with_methods(*METHODS)
    def test_daemons_end_within_a_second_of_their_killed_parent(self, method):
        self.run_script('', '''
            daemons = [start(sleep, daemon=True) for _ in range(3)]
            os.kill(os.getpid(), signal.SIGKILL)
        ''', method, code=-9)

    def test_daemons_that_ignore_sigterm_are_killed(self):
        self.run_script('''
            def stubborn(ready):
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                ready.set()
                sleep()
        ''', '''
            ready = CONTEXT.Event()
            start(stubborn, ready, daemon=True)
            ready.wait()
            os.kill(os.getpid(), signal.SIGKILL)
        ''', code=-9)

    @with_methods(*METHODS)
    def test_children_that_are_no_daemons_outlive_their_killed_parent(self, method):
        marker = self.path('marker')
        self.run_script(f'''
            def late(parent):
                wait_until(lambda: is_gone(parent))
                open({marker!r}, 'a').close()
        ''', '''
            start(late, os.getpid())
            os.kill(os.getpid(), signal.SIGKILL)
        ''', method, code=-9)
        open(marker).close()

    @with_methods(*METHODS)
    def test_running_session_survives_the_supervisor(self, method):
        out = self.run_script('''
            def until(event, code):
                event.wait()
                sys.exit(code)
        ''', '''
            event = CONTEXT.Event()
            children = [start(until, event, code) for code in (3, 4)]
            wait_until(_pyhost.supervisor_pid)  # children by fork are there before it is up
            supervisor = _pyhost.supervisor_pid()
            os.kill(supervisor, signal.SIGKILL)
            wait_until(lambda: is_gone(supervisor))
            event.set()
            for child in children:
                child.join(20)
            print([child.exitcode for child in children])
        ''', method)
        self.assertEqual(out, '[3, 4]\n')

    @with_methods(*SERVED)
    def test_start_without_supervisor_is_an_error_that_names_it(self, method):
        out = self.run_script('', '''
            start(nothing).join()
            supervisor = _pyhost.supervisor_pid()
            os.kill(supervisor, signal.SIGKILL)
            wait_until(lambda: is_gone(supervisor))
            try:
                start(nothing)
            except OSError as error:
                print(type(error).__name__, f'supervisor (pid {supervisor}) is gone' in str(error))
        ''', method)
        self.assertEqual(out, 'SessionError True\n')

    def test_supervisor_is_small_and_idle(self):
        out = self.run_script('', '''
            children = [start(sleep, daemon=True) for _ in range(8)]
            supervisor = f'/proc/{_pyhost.supervisor_pid()}'
            with open(supervisor + '/smaps_rollup') as file:
                kib = {words[0]: int(words[1]) for words in map(str.split, file) if words[-1] == 'kB'}
            print(kib['Rss:'] < 16 << 10, kib['Private_Dirty:'] < 2 << 10, os.listdir(supervisor + '/task') == [supervisor[6:]])
        ''')
        self.assertEqual(out, 'True True True\n')

    def test_ctrl_c_and_hangup_leave_the_supervisor_alone(self):
        self.run_script('', '''
            start(nothing).join()
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
                os.kill(_pyhost.supervisor_pid(), number)
                os.kill(_pyhost.server_pid('spawn'), number)
            process = start(nothing)
            process.join()
            assert process.exitcode == 0
        ''')

    BECOME = '''
        def become(lock=None, seconds=600):
            lock = lock or CONTEXT.Lock()
            lock.acquire()
            os.closerange(0, 3)  # the test reads to the end of what the script may print
            os.execv('/bin/sleep', ['sleep', str(seconds)])

        def is_program(process):
            return 'became another program' in process._popen._child.exit_reason()
    '''

    @with_methods(*METHODS)
    def test_host_that_became_another_program_lives(self, method):
        out = self.run_script(self.BECOME, '''
            process = start(become)
            wait_until(lambda: is_program(process))
            print(process.is_alive(), process.exitcode, is_gone(process.pid))
            process.kill()
            process.join()
            print(process.exitcode, process._popen.exit_reason())
        ''', method)
        self.assertEqual(out, 'True None False\n-9 killed by SIGKILL\n')

    @with_methods(*METHODS)
    def test_program_that_a_daemon_became_ends_with_the_killed_parent(self, method):
        self.run_script(self.BECOME, '''
            process = start(become, daemon=True)
            wait_until(lambda: is_program(process))
            os.kill(os.getpid(), signal.SIGKILL)
        ''', method, code=-9)

    @with_methods(*METHODS)
    def test_program_that_no_daemon_became_outlives_the_killed_parent(self, method):
        self.run_script(self.BECOME, '''
            process = start(become, None, 601)
            wait_until(lambda: is_program(process))
            os.kill(os.getpid(), signal.SIGKILL)
        ''', method, code=-9, left=['sleep 601'])
        self.assertEqual([command for _, command in marked(self.mark)], ['sleep 601 '])
        self.kill_marked()

    @with_methods(*SERVED)
    def test_end_of_a_program_is_told_by_the_supervisor_once_its_server_died(self, method):
        out = self.run_script(self.BECOME, f'''
            process = start(become, None, 1)
            wait_until(lambda: is_program(process))
            os.kill(_pyhost.server_pid({method!r}), signal.SIGKILL)
            process.join()
            print(process.exitcode)
        ''', method)
        self.assertEqual(out, '0\n')

    def test_lock_stays_locked_whose_owner_became_another_program(self):
        out = self.run_script(self.BECOME, '''
            lock = CONTEXT.Lock()
            process = start(become, lock, 0.2)
            process.join()
            print(lock.acquire(timeout=0.2))
        ''')
        self.assertEqual(out, 'False\n')

    def test_descriptors_are_as_many_after_many_children_as_before(self):
        self.run_script('''
            def counts():
                return [len(os.listdir(f'/proc/{pid}/fd'))
                        for pid in (os.getpid(), _pyhost.supervisor_pid(), _pyhost.server_pid('spawn'))]
            def run_one():
                process = start(nothing)
                process.join()
                process.close()
        ''', '''
            def has_spare():
                return spares_of(_pyhost.server_pid('spawn'))
            run_one()
            wait_until(has_spare)
            before = counts()
            for _ in range(50):
                run_one()
            # The first child may not be buried yet when they are counted for the first time.
            wait_until(lambda: has_spare() and all(now <= then for now, then in zip(counts(), before)))
        ''')


class EarlyStartTest(SessionCase):

    def run_without_variables(self, source, *options, env=None):
        """What the script prints in an environment without variables of Python but `env`."""
        with open(self.path('early.py'), 'w') as file:
            file.write(source)
        name, value = self.mark.decode().split('=')
        environment = {key: text for key, text in os.environ.items() if not key.startswith('PYTHON')}
        result = subprocess.run([sys.executable, *options, self.path('early.py')], capture_output=True, text=True,
                                env={**environment, name: value, **(env or {})}, timeout=30)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assert_nobody_left()
        return result.stdout

    SESSION = 'import _pyhost\nprint(_pyhost.session_id() is not None)\n'
    STARTS = (SESSION + 'import multiprocessing as mp\n'
              'if __name__ == "__main__":\n'
              '    process = mp.Process(target=print, args=("child",))\n    process.start()\n    process.join()\n'
              '    with open(f"/proc/{_pyhost.supervisor_pid()}/task/{_pyhost.supervisor_pid()}/children") as file:\n'
              '        print(len(file.read().split()), "server")\n')

    def test_script_that_will_start_processes_has_a_session_before_its_first_line(self):
        self.assertEqual(self.run_without_variables(self.STARTS), 'True\nTrue\nchild\n1 server\n')

    def test_script_that_starts_nothing_has_none(self):
        self.assertEqual(self.run_without_variables(self.SESSION + 'import multiprocessing\n'), 'False\n')

    def test_variables_that_change_options_are_told_to_the_server(self):
        for name, early in (('PYTHONDONTWRITEBYTECODE', True), ('PYTHONUNBUFFERED', True), ('PYTHONOPTIMIZE', False)):
            with self.subTest(name):
                self.assertEqual(self.run_without_variables(self.STARTS, env={name: '1'}), f'{early}\nTrue\nchild\n1 server\n')

    def test_options_leave_it_to_the_first_start(self):
        self.assertEqual(self.run_without_variables(self.STARTS, '-O'), 'False\nTrue\nchild\n1 server\n')

    def test_fork_before_multiprocessing_is_imported_is_a_host(self):
        out = self.run_without_variables(
            'import os\nif __name__ == "__main__" and os.fork() == 0:\n'
            '    import multiprocessing as mp\n    with mp.Pool(1) as pool: print(pool.apply(abs, (-7,)), flush=True)\n'
            '    os._exit(0)\nelif __name__ == "__main__":\n    os.wait()\n')
        self.assertEqual(out, '7\n')


class ServerTest(SessionCase):

    @with_methods(*SERVED)
    def test_killed_server_is_replaced_and_its_children_keep_their_exit_codes(self, method):
        out = self.run_script('''
            def until(event, code):
                event.wait()
                sys.exit(code)
        ''', f'''
            event = CONTEXT.Event()
            children = [start(until, event, code) for code in (3, 4)]
            server = _pyhost.server_pid({method!r})
            os.kill(server, signal.SIGKILL)
            children.append(start(until, event, 5))
            event.set()
            for child in children:
                child.join(20)
            print([child.exitcode for child in children], _pyhost.server_pid({method!r}) != server)
        ''', method)
        self.assertEqual(out, '[3, 4, 5] True\n')

    def test_children_of_a_killed_server_leave_no_zombie(self):
        self.run_script('''
            def children_of(pid):
                with open(f'/proc/{pid}/task/{pid}/children') as file:
                    return file.read().split()
        ''', '''
            process = start(sleep)
            server = _pyhost.server_pid('spawn')
            os.kill(server, signal.SIGKILL)
            process.kill()
            process.join()
            assert process.exitcode == -9
            wait_until(lambda: not os.path.exists(f'/proc/{process.pid}'))
            wait_until(lambda: not os.path.exists(f'/proc/{server}'))
        ''')

    @with_methods(*SERVED)
    def test_second_start_is_served_by_a_spare_child(self, method):
        out = self.run_script('', f'''
            start(nothing).join()
            server = _pyhost.server_pid({method!r})
            wait_until(lambda: spares_of(server))
            spare, = spares_of(server)
            process = start(leave, 4)
            process.join()
            print(process.pid == spare, process.exitcode)
            wait_until(lambda: spares_of(server))
        ''', method)
        self.assertEqual(out, 'True 4\n')

    @with_methods(*SERVED)
    def test_starts_go_on_without_the_spare_child(self, method):
        out = self.run_script('', f'''
            start(nothing).join()
            server = _pyhost.server_pid({method!r})
            wait_until(lambda: spares_of(server))
            os.kill(spares_of(server)[0], signal.SIGKILL)
            codes = []
            for code in (3, 4):
                process = start(leave, code)
                process.join()
                codes.append(process.exitcode)
            print(codes, _pyhost.server_pid({method!r}) == server)
        ''', method)
        self.assertEqual(out, '[3, 4] True\n')

    def test_spare_child_of_a_killed_server_ends(self):
        self.run_script('', '''
            start(nothing).join()
            server = _pyhost.server_pid('spawn')
            wait_until(lambda: spares_of(server))
            spare, = spares_of(server)
            os.kill(server, signal.SIGKILL)
            wait_until(lambda: is_gone(spare))
        ''')

    def test_signals_to_the_group_before_a_start_are_not_the_childs(self):
        out = self.run_script('', '''
            start(nothing).join()
            server = _pyhost.server_pid('spawn')
            wait_until(lambda: spares_of(server))
            spare, = spares_of(server)
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
                os.kill(spare, number)
            process = start(leave, 4)
            process.join()
            print(process.pid == spare, process.exitcode)
        ''')
        self.assertEqual(out, 'True 4\n')

    def test_spare_child_has_what_its_server_holds(self):
        with open(self.path('holder.py'), 'w') as file:
            file.write('import multiprocessing as mp\nqueue = mp.get_context("forkserver").Queue()\n')
        out = self.run_script('''
            def put(text):
                import holder
                holder.queue.put(text)
                print(holder.queue.get(timeout=20), flush=True)
        ''', '''
            CONTEXT.set_forkserver_preload(['holder'])
            start(put, 'forked').join()
            wait_until(lambda: spares_of(_pyhost.server_pid('forkserver')))
            start(put, 'spare').join()
        ''', 'forkserver')
        self.assertEqual(out, 'forked\nspare\n')

    def preload_option(self, names, target, method='spawn'):
        """What a script prints whose child runs `target`, with -X preload=names."""
        with open(self.path('heavy.py'), 'w') as file:
            file.write('import os\nserver = os.getpid()\nprint("imported", flush=True)\n')
        with open(self.path('preload.py'), 'w') as file:
            file.write('import os, sys, time\nimport multiprocessing as mp\n'
                       f'def child():\n    {target}\n'
                       'if __name__ == "__main__":\n    for _ in range(2):\n'
                       f'        process = mp.get_context({method!r}).Process(target=child)\n'
                       '        process.start()\n        process.join()\n        print(process.exitcode)\n')
        result = subprocess.run([sys.executable, '-X', f'preload={names}', self.path('preload.py')], capture_output=True,
                                text=True, timeout=30)
        self.assertEqual(result.returncode, 0, result.stderr)
        return result.stdout, result.stderr

    @with_methods(*SERVED)
    def test_modules_of_the_option_preload_are_imported_once_by_the_server(self, method):
        out, err = self.preload_option('heavy, json', 'import heavy; assert "json" in sys.modules; '
                                       'print(heavy.server == os.getppid(), flush=True)', method)
        self.assertEqual((out.replace('imported\n', ''), err), ('True\n0\nTrue\n0\n', ''))
        # The server of the default method is on its way since multiprocessing was imported.
        self.assertIn(out.count('imported'), (1,) if method == 'spawn' else (1, 2))

    def test_module_of_the_option_preload_that_is_missing_is_left_to_the_children(self):
        out, err = self.preload_option('no_such_module,heavy', 'import heavy')
        self.assertEqual((out, err), ('imported\n0\n0\n', ''))

    def test_preload_that_starts_a_thread_is_refused_and_named(self):
        with open(self.path('threaded.py'), 'w') as file:
            file.write('import threading, time\nthreading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n')
        out = self.run_script('', '''
            CONTEXT.set_forkserver_preload(['threaded'])
            try:
                start(nothing)
            except OSError as error:
                print("module 'threaded' started a thread" in str(error))
        ''', 'forkserver')
        self.assertEqual(out, 'True\n')

    def test_server_that_is_asked_for_does_without_a_main_module_that_starts_a_thread(self):
        out = self.run_script('''
            threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
        ''', '''
            from multiprocessing import forkserver
            forkserver.ensure_running()
            process = start(nothing)
            process.join()
            print(process.exitcode, _pyhost.server_pid('forkserver') is not None)
        ''', 'forkserver')
        self.assertEqual(out, '0 True\n')

    def test_preload_that_ends_the_server_fails_the_start_with_the_cause(self):
        with open(self.path('deadly.py'), 'w') as file:
            file.write('import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n')
        out = self.run_script('', '''
            CONTEXT.set_forkserver_preload(['deadly'])
            try:
                start(nothing)
            except OSError as error:
                print('killed by SIGKILL' in str(error))
        ''', 'forkserver')
        self.assertEqual(out, 'True\n')

    def test_variables_read_at_start_up_get_a_server_of_their_own(self):
        out = self.run_script('''
            def tell(conn):
                conn.send((sys.flags.utf8_mode, os.environ.get('PYTHONUTF8')))
        ''', '''
            ours, theirs = CONTEXT.Pipe()
            for value in ('0', '1'):
                os.environ['PYTHONUTF8'] = value
                start(tell, theirs).join()
                print(*ours.recv())
        ''')
        self.assertEqual(out, '0 0\n1 1\n')

    def test_concurrent_starts_from_many_threads(self):
        out = self.run_script('', '''
            codes = []
            def run(code):
                process = start(leave, code)
                process.join()
                codes.append(process.exitcode)
            threads = [threading.Thread(target=run, args=(code,)) for code in range(20)]
            for thread in threads: thread.start()
            for thread in threads: thread.join()
            print(sorted(codes) == list(range(20)))
        ''')
        self.assertEqual(out, 'True\n')

    def test_large_arguments(self):
        out = self.run_script('def size(data): sys.exit(len(data) >> 20)', '''
            process = start(size, b'x' * (50 << 20))
            process.join()
            print(process.exitcode)
        ''')
        self.assertEqual(out, '50\n')


if __name__ == '__main__':
    unittest.main()
