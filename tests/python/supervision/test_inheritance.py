"""What a child has from its starter.  python3's child, launched by its starter, is the oracle: the same script must
print the same under both programs."""

import os
import shutil
import subprocess
import sys
import unittest

from session import PRELUDE, SECONDS, SessionCase

ORACLE = '/usr/bin/python3'

BODY = '''
def settings():
    """Scheduling, and what of a process only the kernel knows."""
    import ctypes
    library = ctypes.CDLL(None)
    with open('/proc/self/oom_score_adj') as file:
        adjustment = file.read()
    return [os.sched_getscheduler(0), os.sched_getparam(0).sched_priority, os.nice(0), adjustment,
            library.prctl(30), library.personality(0xffffffff)]

def set_settings(policy, priority=0):
    import ctypes
    library = ctypes.CDLL(None)
    os.sched_setscheduler(0, policy, os.sched_param(priority))
    with open('/proc/self/oom_score_adj', 'w') as file:
        file.write('300')
    library.prctl(29, 123456)
    library.personality(0x0040000)

def report(conn):
    conn.send({
        'settings': settings(),
        'folder': os.getcwd(), 'umask': os.umask(0), 'nice': os.nice(0), 'cpus': os.sched_getaffinity(0),
        'mask': sorted(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, []))),
        'ignored': [int(s) for s in signal.valid_signals() if signal.getsignal(s) == signal.SIG_IGN],
        'default': [int(s) for s in signal.valid_signals() if signal.getsignal(s) == signal.SIG_DFL],
        'interrupt': signal.getsignal(signal.SIGINT) is signal.default_int_handler,
        'limits': [resource.getrlimit(n) for n in range(16)], 'os.environ': os.environ.get('CHILD_SEES'),
        'environ': subprocess.run(['sh', '-c', 'echo "$CHILD_SEES"'], capture_output=True).stdout,
        'gone': 'HOME' in os.environ, 'argv': sys.argv, 'path': [p for p in sys.path if 'pyhost' not in p],
        'flags': [getattr(sys.flags, name) for name in ('optimize', 'dont_write_bytecode', 'verbose', 'safe_path')],
        'warnings': sys.warnoptions, 'options': sys._xoptions,
        'streams': [(s.encoding, s.errors, s.line_buffering, s.write_through, s.name, s.mode, s.fileno())
                    if s else None for s in (sys.stdout, sys.stderr)],
        'cgroup': open('/proc/self/cgroup').read(), 'real streams': [(s.name, s.fileno()) for s in (sys.__stdout__, sys.__stderr__) if s],
    })

def tell_who(conn):
    with open('/proc/self/status') as file:
        who = [line.split() for line in file if line.startswith(
            ('Uid', 'Gid', 'Groups', 'Cap', 'NoNewPrivs', 'Seccomp', 'NSpgid', 'NSsid'))]
    conn.send([who, [os.readlink(f'/proc/self/ns/{name}') for name in ('mnt', 'net', 'ipc', 'uts', 'user')],
               os.stat('/').st_ino, os.stat('/').st_dev, os.getsid(0), os.getpgrp()])

def show_who():
    """Whether the child is who we are."""
    ours, theirs = CONTEXT.Pipe()
    process = start(tell_who, theirs)
    child = ours.recv()
    process.join()
    tell_who(theirs)
    print(child == ours.recv() or child, process.exitcode, flush=True)

def tell_early(conn):
    conn.send([time.tzname, sys.flags.utf8_mode, sys.flags.optimize, hash('x') == int(os.environ.get('HASH', 0)),
               sys.stdout.encoding])

def show_early():
    ours, theirs = CONTEXT.Pipe()
    process = start(tell_early, theirs)
    print(ours.recv(), flush=True)
    process.join()

def show():
    ours, theirs = CONTEXT.Pipe()
    process = start(report, theirs)
    for key, value in ours.recv().items():
        print(key, value)
    process.join()
    print(process.exitcode, flush=True)
'''


@unittest.skipUnless(shutil.which(ORACLE), 'needs python3')
class InheritanceTest(SessionCase):

    def assert_same(self, main, *options, program=sys.executable, **run):
        """The script prints the same under both."""
        source = (PRELUDE.replace('import _pyhost', '') + "CONTEXT = mp.get_context('spawn')\n" + BODY
                  + "\nif __name__ == '__main__':\n" + ''.join(f'    {line}\n' for line in main.splitlines()))
        with open(self.path('script.py'), 'w') as file:
            file.write(source)
        ours, theirs = [
            subprocess.run([program, *options, self.path('script.py'), 'an', 'argument'], capture_output=True, text=True,
                           timeout=SECONDS, **run) for program in (program, ORACLE)]
        self.assertEqual(ours.stdout.replace('__mp_main__', '__main__'), theirs.stdout, ours.stderr)
        self.assertEqual(ours.stderr, theirs.stderr)
        self.assertTrue(ours.stdout.strip())

    def test_unchanged_starter(self):
        self.assert_same('show()')

    def test_interpreter_options(self):
        self.assert_same('show()', '-O', '-B', '-W', 'ignore::UserWarning', '-X', 'utf8')

    def test_folder_umask_nice_and_cpus(self):
        self.assert_same('show()\nos.chdir("/usr"); os.umask(0o27); os.nice(3); os.sched_setaffinity(0, [0])\nshow()')

    def test_scheduling_and_settings_of_the_kernel(self):
        for policy in ('os.SCHED_BATCH', 'os.SCHED_IDLE', 'os.SCHED_BATCH | os.SCHED_RESET_ON_FORK'):
            with self.subTest(policy=policy):
                self.assert_same(f'show()\nset_settings({policy})\nshow()')

    def test_scheduling_that_a_server_cannot_change(self):
        def be_idle():
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))

        self.assert_same('show()\nset_settings(os.SCHED_OTHER)\nshow()', preexec_fn=be_idle)

    def test_real_time_scheduling(self):
        try:
            before = os.sched_getscheduler(0), os.sched_getparam(0)
            os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(2))
            os.sched_setscheduler(0, *before)
        except OSError as error:
            self.skipTest(f'real-time scheduling is not allowed here: {error}')
        self.assert_same('show()\nset_settings(os.SCHED_RR, 2)\nshow()')

    def test_environment(self):
        self.assert_same('show()\nos.environ["CHILD_SEES"] = "x=y z"; os.environ.pop("HOME", None)\nshow()')

    def test_signals(self):
        self.assert_same(
            'show()\nsignal.signal(signal.SIGUSR1, signal.SIG_IGN); signal.signal(signal.SIGINT, signal.SIG_IGN)\n'
            'signal.signal(signal.SIGUSR2, lambda *_: 0)\nsignal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])\nshow()')

    def test_cgroup(self):
        group = self.make_cgroup()
        self.assert_same(f'show()\nopen({os.path.join(group, "cgroup.procs")!r}, "w").write(str(os.getpid()))\nshow()')

    def make_cgroup(self):
        """A new control group that processes can be moved to."""
        group = f'/pyhost-test-{os.getpid()}'
        for root in '/sys/fs/cgroup', '/sys/fs/cgroup/unified', '/sys/fs/cgroup/pids':
            if os.access(root + '/cgroup.procs', os.W_OK):
                try:
                    os.mkdir(root + group)
                except OSError:
                    continue
                self.addCleanup(os.rmdir, root + group)
                return root + group
        self.skipTest('needs a cgroup hierarchy that may be changed')

    def test_limits(self):
        self.assert_same('show()\nresource.setrlimit(resource.RLIMIT_NOFILE, (128, 4096))\n'
                         'resource.setrlimit(resource.RLIMIT_CORE, (0, 0))\nshow()')

    def test_path_and_arguments_that_the_program_changed(self):
        self.assert_same('show()\nsys.path.insert(0, "/tmp/somewhere"); sys.argv[1:] = ["x", "y z"]\nshow()')

    def test_closed_streams(self):
        for number in (0, 2):
            with self.subTest(number=number):
                self.assert_same(f'show()\nos.close({number})\nshow()')

    # Who the child is: what no server can change.

    def test_early_variables(self):
        self.assert_same('show_early()\nos.environ["TZ"] = "Asia/Tokyo"\nshow_early()\n'
                         'os.environ["PYTHONOPTIMIZE"] = "2"; os.environ["PYTHONUTF8"] = "1"\nshow_early()\n'
                         'os.environ["HASH"] = subprocess.run([sys.executable, "-c", "print(hash(\'x\'))"], text=True, '
                         'capture_output=True, env={"PYTHONHASHSEED": "5"}).stdout; os.environ["PYTHONHASHSEED"] = "5"\n'
                         'show_early()')

    def test_session_and_process_group(self):
        self.assert_same('show_who()\nif os.getpid() != os.getpgrp(): os.setpgid(0, 0)\nshow_who()\n'
                         'if os.fork() == 0:\n    os.setsid()\n    show_who()\n    os._exit(0)\nos.wait()')

    def test_filter_of_system_calls(self):
        # One instruction: allow.
        self.assert_same('show_who()\nimport ctypes, struct\nlibc = ctypes.CDLL(None)\n'
                         'code = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0x7fff0000))\n'
                         'program = ctypes.create_string_buffer(struct.pack("HP", 1, ctypes.addressof(code)))\n'
                         'print(libc.prctl(38, 1, 0, 0, 0), libc.prctl(22, 2, program))\nshow_who()')

    @unittest.skipUnless(os.geteuid() == 0, 'needs to change users')
    def test_dropped_groups_users_and_capabilities(self):
        self.assert_same('show_who()\nos.setgroups([61235])\nshow_who()\nos.setresgid(61234, 61234, 61234)\nshow_who()\n'
                         'os.setresuid(61234, 61234, 61234)\nshow_who()', **self.for_every_user())

    @unittest.skipUnless(os.geteuid() == 0, 'needs privileges')
    def test_namespace_and_root_folder(self):
        self.assert_same(f'show_who()\nimport ctypes\nlibc = ctypes.CDLL(None)\nnew = {self.path("root").encode()!r}\n'
                         'os.makedirs(new, exist_ok=True)\nprint(libc.unshare(0x00020000 | 0x04000000))\nshow_who()\n'
                         'print(libc.mount(None, b"/", None, 0x4000 | (1 << 18), None), '
                         'libc.mount(b"/", new, None, 0x1000 | 0x4000, None))\nos.chroot(new); os.chdir("/")\nshow_who()\n')

    def test_redirected_streams(self):
        self.assert_same(f'show()\nfd = os.open({self.path("out")!r}, os.O_RDWR | os.O_CREAT)\nsaved = os.dup(1)\n'
                         'os.dup2(fd, 1); os.dup2(fd, 2)\nshow()\nos.dup2(saved, 1); show()\n'
                         f'print(open({self.path("out")!r}).read())')

    def test_passed_descriptors_keep_their_numbers(self):
        self.assert_same('import multiprocessing.connection\nr, w = os.pipe()\nfor number in (50, 200, 203, 500):\n'
                         '    os.dup2(w, number)\n    connection = mp.connection.Connection(number, readable=False)\n'
                         '    process = start(connection.__class__.send_bytes, connection, b"x%d" % number)\n'
                         '    process.join(); print(process.exitcode, os.read(r, 100))\n    connection.close()\n')


if __name__ == '__main__':
    unittest.main()
