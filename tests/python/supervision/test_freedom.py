"""What programs do to themselves must keep working in every host: forks, waits, daemons, execs, limits, privileges."""

import os
import unittest

from session import SessionCase


class ForkTest(SessionCase):

    def test_own_fork_is_a_host_and_can_start_processes(self):
        out = self.run_script('', '''
            start(nothing).join()
            pid = os.fork()
            if pid == 0:
                process = start(leave, 5)
                process.join()
                os._exit(process.exitcode)
            print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), _pyhost.host_id() != 0)
        ''')
        self.assertEqual(out, '5 True\n')

    def test_fork_frees_what_other_threads_had_alone(self):
        # The interpreter frees their data in the child before it tells anybody of the fork.
        out = self.run_script('', '''
            local = threading.local()
            held, ended = threading.Event(), threading.Event()
            def hold():
                local.queue, local.lock = CONTEXT.Queue(), CONTEXT.Lock()
                local.queue.put(CONTEXT.Lock() and 'kept')
                held.set()
                ended.wait()
            thread = threading.Thread(target=hold)
            thread.start()
            held.wait()
            child = os.fork()
            if child == 0:
                process = start(leave, 3)
                process.join()
                os._exit(process.exitcode)
            wait_until(lambda: is_gone(child))
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
            ended.set()
            thread.join()
        ''')
        self.assertEqual(out, '3\n')

    def test_forks_of_forks_hold_what_their_parents_held(self):
        out = self.run_script('', '''
            queue = CONTEXT.Queue()
            if os.fork() == 0:
                if os.fork() == 0:
                    queue.put('from the grandchild')
                os._exit(0)
            os.wait()
            print(queue.get(timeout=20))
        ''')
        self.assertEqual(out, 'from the grandchild\n')

    def test_waitpid_for_any_child_sees_the_programs_children_only(self):
        out = self.run_script('', '''
            process = start(sleep)
            try:
                os.waitpid(-1, 0)
            except ChildProcessError:
                print('none')
            child = subprocess.Popen(['true'])
            print(os.waitpid(-1, 0)[0] == child.pid)
            process.kill()
            process.join()
            print(process.exitcode)
        ''')
        self.assertEqual(out, 'none\nTrue\n-9\n')

    def test_exit_code_of_a_forked_child_that_the_program_waited_for_itself(self):
        out = self.run_script('', '''
            process = start(leave, 6)
            os.waitpid(-1, 0)
            process.join(20)
            print(process.exitcode)
        ''', 'fork')
        self.assertEqual(out, '6\n')

    def test_starting_a_session_sends_no_sigchld(self):
        out = self.run_script('', '''
            seen = []
            signal.signal(signal.SIGCHLD, lambda *_: seen.append(1))
            process = start(nothing)
            process.join()
            print(seen)
        ''')
        self.assertEqual(out, '[]\n')

    def test_subprocesses_are_no_hosts(self):
        out = self.run_script('def hook(): pass', '''
            start(nothing).join()
            before = _pyhost.host_id()
            subprocess.run(['true'])
            subprocess.run(['true'], preexec_fn=hook)
            print(subprocess.run([sys.executable, '-c', 'import _pyhost; print(_pyhost.host_id())'],
                                 capture_output=True, text=True).stdout.strip(), _pyhost.host_id() == before)
        ''')
        self.assertEqual(out, '0 True\n')


class DaemonTest(SessionCase):

    def test_daemon_that_closed_all_descriptors_starts_processes(self):
        result = self.path('result')
        self.run_script('', f'''
            start(nothing).join()
            queue = CONTEXT.Queue()
            if os.fork():
                os._exit(0)
            os.setsid()
            if os.fork():
                os._exit(0)
            os.closerange(0, 4096)
            for _ in range(3):
                os.open('/dev/null', os.O_RDWR)
            process = start(leave, 7)
            process.join()
            queue.put(process.exitcode)
            with open({result!r} + '.new', 'w') as file:
                file.write(str(queue.get(timeout=20)))
            os.rename({result!r} + '.new', {result!r})
        ''')
        with open(result) as file:
            self.assertEqual(file.read(), '7')

    def test_shared_memory_grows_after_all_descriptors_were_closed(self):
        out = self.run_script('''
            def measure(queue, sizes):
                sizes.put([len(queue.get()) for _ in range(8)])
        ''', '''
            start(nothing).join()
            queue, sizes = CONTEXT.Queue(), CONTEXT.Queue()
            os.closerange(3, 4096)
            opened = [os.open('/dev/zero', os.O_RDONLY) for _ in range(300)]
            for _ in range(8):
                queue.put(bytes(8 << 20))
            process = start(measure, queue, sizes)
            print(set(sizes.get(timeout=60)), all(os.read(fd, 1) == b'\\0' for fd in opened))
            process.join()
        ''')
        self.assertEqual(out, '{8388608} True\n')

    def test_low_and_high_descriptors_reused_by_the_program(self):
        out = self.run_script('', '''
            start(nothing).join()
            os.closerange(3, 1024)
            opened = [os.open('/dev/zero', os.O_RDONLY) for _ in range(300)]
            process = start(leave, 4)
            process.join()
            print(process.exitcode, all(os.read(fd, 1) == b'\\0' for fd in opened))
        ''')
        self.assertEqual(out, '4 True\n')


class ExecTest(SessionCase):

    def test_reexec_of_the_root_begins_a_session_of_its_own(self):
        out = self.run_script('', '''
            process = start(leave, 2)
            process.join()
            print(process.exitcode, _pyhost.session_id() is not None, flush=True)
            if 'again' not in sys.argv:
                os.execv(sys.executable, [sys.executable, *sys.argv, 'again'])
        ''')
        self.assertEqual(out, '2 True\n2 True\n')


class LimitTest(SessionCase):

    def test_no_descriptor_left_is_an_error_that_names_the_limit(self):
        out = self.run_script('', '''
            first = start(sleep)
            resource.setrlimit(resource.RLIMIT_NOFILE, (256, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
            taken = []
            try:
                while True:
                    taken.append(os.open('/dev/null', os.O_RDONLY))
            except OSError:
                pass
            for spare in range(6):
                try:
                    start(sleep, daemon=True)
                    print('started')
                    break
                except OSError as error:
                    if 'RLIMIT_NOFILE' in str(error): print('named', error.errno)
                os.close(taken.pop())
            os.close(taken.pop()), os.close(taken.pop())
            first.terminate()
            first.join(20)
            print(first.exitcode)
        ''')
        self.assertIn('named 24\n', out)
        self.assertTrue(out.endswith('-15\n'), out)

    @unittest.skipUnless(os.geteuid() == 0, 'needs to change users')
    def test_no_process_left_is_an_error_that_names_the_limit(self):
        out = self.run_script('', '''
            _pyhost.ensure_session()
            resource.setrlimit(resource.RLIMIT_NPROC, (2, 2))
            os.setresuid(61234, 61234, 61234)
            first = start(sleep)
            for method in ('fork', 'spawn'):
                CONTEXT = mp.get_context(method)
                try:
                    start(nothing)
                except OSError as error:
                    print(error.errno, 'RLIMIT_NPROC' in str(error))
            first.terminate()
            first.join(20)
            print(first.exitcode)
        ''', 'fork', **self.for_every_user())
        self.assertEqual(out, '11 True\n11 True\n-15\n')


class IdentityTest(SessionCase):

    BODY = '''
        def tell(conn):
            with open('/proc/self/status') as file:
                seccomp = [line for line in file if line.startswith(('Uid', 'Gid', 'CapEff', 'NoNewPrivs'))]
            conn.send((os.getresuid(), os.getsid(0), os.getpgrp(), seccomp))
        def same():
            ours, theirs = CONTEXT.Pipe()
            process = start(tell, theirs)
            got = ours.recv()
            tell(theirs)
            process.join()
            return got == ours.recv() and process.exitcode == 0
    '''

    def test_new_session_or_group_of_the_starter_is_the_childs(self):
        out = self.run_script(self.BODY, '''
            print(same())
            os.setpgid(0, 0) if os.getpgrp() != os.getpid() else None
            print(same(), flush=True)
            if os.fork() == 0:
                os.setsid()
                print(same(), flush=True)
                os._exit(0)
            os.wait()
        ''')
        self.assertEqual(out, 'True\nTrue\nTrue\n')

    @unittest.skipUnless(os.geteuid() == 0, 'needs to change users')
    def test_dropped_privileges_stay_dropped(self):
        out = self.run_script(self.BODY, '''
            start(nothing).join()
            os.setgroups([])
            os.setresgid(61234, 61234, 61234)
            os.setresuid(61234, 61234, 61234)
            print(same())
        ''', **self.for_every_user())
        self.assertEqual(out, 'True\n')

    def test_no_new_privileges(self):
        out = self.run_script(self.BODY, '''
            import ctypes
            start(nothing).join()
            assert ctypes.CDLL(None).prctl(38, 1, 0, 0, 0) == 0
            print(same())
        ''')
        self.assertEqual(out, 'True\n')


class SandboxTest(SessionCase):

    def test_refused_pidfd_open_is_named_and_nothing_is_left_running(self):
        out = self.run_script('''
            def refuse(number, error):
                """A seccomp filter by which the system call `number` fails with `error`."""
                import ctypes, struct
                load, jump_unless_equal, answer = 0x20, 0x15, 0x06
                allow, fail = 0x7fff0000, 0x00050000
                program = b''.join(struct.pack('=HBBI', *code) for code in (
                    (load, 0, 0, 0), (jump_unless_equal, 0, 1, number), (answer, 0, 0, fail | error), (answer, 0, 0, allow)))
                memory = ctypes.create_string_buffer(program)
                header = ctypes.create_string_buffer(struct.pack('@HP', len(program) // 8, ctypes.addressof(memory)))
                libc = ctypes.CDLL(None, use_errno=True)
                assert libc.prctl(38, 1, 0, 0, 0) == 0, 'PR_SET_NO_NEW_PRIVS'
                assert libc.prctl(22, 2, header, 0, 0) == 0, 'PR_SET_SECCOMP'
        ''', '''
            import errno
            refuse(434, errno.EPERM)
            for attempt in range(2):
                try:
                    start(nothing)
                except OSError as error:
                    print(error.errno == errno.EPERM, 'pidfd_open' in str(error), 'sandbox' in str(error))
        ''')
        self.assertEqual(out, 'True True True\n' * 2)


if __name__ == '__main__':
    unittest.main()
