"""Death of supervisor, server, starter and child at each step of a start and of an end."""

import os
import unittest

import _pyhost
from session import SessionCase

SERVER_POINTS = ('server-before-fork', 'server-forked', 'server-before-answer')
# A spare child is there from the second start on.
HANDOVER_POINTS = ('server-before-handover', 'server-handed-over')
CHILD_POINTS = ('fork-child-before-adopt', 'child-before-main')
SUPERVISOR_POINTS = ('supervisor-launched-server', 'supervisor-forwarded-start', 'supervisor-before-recovery')
STARTER_POINTS = ('start-has-payload', 'start-sent')


@unittest.skipUnless(hasattr(_pyhost, 'arm_crash_point'), 'a build without crash points')
class CrashPointTest(SessionCase):

    def run_crashing(self, role, point, *arguments):
        """run_script() where the first process of the role (supervisor, or a server's method) dies at the point."""
        token = self.path('token')
        open(token, 'w').close()
        out = self.run_script(*arguments, env={'PYHOST_CRASH': f'{role}/{point}:{token}'})
        self.assertFalse(os.path.exists(token), 'nobody was armed')
        return out

    def test_server_that_dies_in_a_start_is_replaced_and_the_child_runs_once(self):
        for method in ('spawn', 'forkserver'):
            for point in SERVER_POINTS:
                with self.subTest(method=method, point=point):
                    count = self.path(f'{method}-{point}')
                    out = self.run_crashing(method, point, f'''
                        def run():
                            with open({count!r}, 'a') as file:
                                file.write('x')
                            sys.exit(3)
                    ''', '''
                        process = start(run)
                        process.join(10)
                        print(process.exitcode)
                    ''', method)
                    self.assertEqual(out, '3\n')
                    with open(count) as file:
                        self.assertEqual(file.read(), 'x')

    def test_child_that_dies_in_its_start_has_ended_by_a_signal(self):
        for method in ('spawn', 'forkserver'):
            for point in CHILD_POINTS:
                with self.subTest(method=method, point=point):
                    out = self.run_crashing(method, point, '', '''
                        process = start(sleep)
                        process.join(10)
                        print(process.exitcode)
                    ''', method)
                    self.assertEqual(out, '-9\n')

    def test_server_that_dies_handing_over_to_its_spare_child_is_replaced_and_the_child_runs_once(self):
        for method in ('spawn', 'forkserver'):
            for point in HANDOVER_POINTS:
                with self.subTest(method=method, point=point):
                    count = self.path(f'{method}-{point}')
                    out = self.run_crashing(method, point, f'''
                        def run():
                            with open({count!r}, 'a') as file:
                                file.write('x')
                            sys.exit(3)
                    ''', f'''
                        first = start(run)
                        first.join(10)
                        wait_until(lambda: spares_of(_pyhost.server_pid({method!r})))
                        second = start(run)
                        second.join(10)
                        print(first.exitcode, second.exitcode)
                    ''', method)
                    self.assertEqual(out, '3 3\n')
                    with open(count) as file:
                        self.assertEqual(file.read(), 'xx')

    def test_spare_child_that_dies_with_its_orders_is_replaced_by_a_fork(self):
        for method in ('spawn', 'forkserver'):
            with self.subTest(method=method):
                out = self.run_crashing(method, 'spare-before-adopt', '', f'''
                    start(nothing).join(10)
                    wait_until(lambda: spares_of(_pyhost.server_pid({method!r})))
                    codes = []
                    for code in (3, 4, 5):
                        process = start(leave, code)
                        process.join(10)
                        codes.append(process.exitcode)
                    print(codes)
                ''', method)
                self.assertEqual(out, '[3, 4, 5]\n')

    def test_supervisor_that_dies_in_a_start_or_an_end_hangs_nobody(self):
        for point in SUPERVISOR_POINTS:
            with self.subTest(point=point):
                out = self.run_crashing('supervisor', point, '', '''
                    end = time.monotonic() + 30
                    try:
                        while time.monotonic() < end:
                            process = start(leave, 3)
                            process.join(10)
                            assert process.exitcode == 3, process.exitcode
                    except OSError as error:
                        print('supervisor' in str(error))
                ''')
                self.assertEqual(out, 'True\n')

    def test_starter_that_dies_in_a_start_leaves_nothing(self):
        for point in STARTER_POINTS:
            with self.subTest(point=point):
                self.run_script('', f'''
                    start(nothing).join()
                    _pyhost.arm_crash_point({point!r})
                    start(nothing, daemon=True)
                ''', code=-9)

    def test_forker_that_dies_before_its_fork_leaves_nothing(self):
        self.run_script('', '''
            start(nothing).join()
            queue = CONTEXT.Queue()
            queue.put(bytes(1 << 20))
            _pyhost.arm_crash_point('fork-embryo-has-holds')
            os.fork()
        ''', code=-9, gone_after=9)  # the supervisor gives a child that may have been forked five seconds

    def test_fork_that_dies_before_it_has_its_place(self):
        out = self.run_script('', '''
            start(nothing).join()
            pid = os.fork()
            os._exit(0) if pid == 0 else os.waitpid(pid, 0)
            _pyhost.arm_crash_point('fork-child-before-adopt')
            process = mp.get_context('fork').Process(target=nothing)
            process.start()
            process.join(10)
            print(process.exitcode)
        ''')
        self.assertEqual(out, '-9\n')


if __name__ == '__main__':
    unittest.main()

    def test_process_that_is_stopped_with_a_lock_stops_no_other_threads(self):
        out = self.run_script('''
            def take(queue):
                _pyhost.arm_crash_point('queue-pop-locked', signal.SIGSTOP)
                print('child', queue.get())
        ''', '''
            def is_stopped():
                with open(f'/proc/{child.pid}/stat') as file:
                    return file.read().rsplit(')', 1)[1].split()[0] == 'T'

            def continue_child():
                time.sleep(0.5)  # the other thread waits for the lock by now, or will; it had the GIL for ever
                got_it = results[:]
                os.kill(child.pid, signal.SIGCONT)
                print('meanwhile', got_it)

            queue, results = CONTEXT.SimpleQueue(), []
            child = start(take, queue)
            queue.put(1)
            queue.put(2)
            wait_until(is_stopped)
            thread = threading.Thread(target=continue_child)
            thread.start()
            results.append(queue.get())
            thread.join()
            child.join()
            print('parent', results)
        ''')
        self.assertEqual(sorted(out.splitlines()), ['child 1', 'meanwhile []', 'parent [2]'])
