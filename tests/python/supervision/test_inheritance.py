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
def report(conn):
    conn.send({
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

    def assert_same(self, main, *options, **run):
        """The script prints the same under both."""
        source = (PRELUDE.replace('import _pyhost', '') + "CONTEXT = mp.get_context('spawn')\n" + BODY
                  + "\nif __name__ == '__main__':\n" + ''.join(f'    {line}\n' for line in main.splitlines()))
        with open(self.path('script.py'), 'w') as file:
            file.write(source)
        ours, theirs = [
            subprocess.run([program, *options, self.path('script.py'), 'an', 'argument'], capture_output=True, text=True,
                           timeout=SECONDS, **run) for program in (sys.executable, ORACLE)]
        self.assertEqual(ours.stdout.replace('__mp_main__', '__main__'), theirs.stdout, ours.stderr)
        self.assertEqual(ours.stderr, theirs.stderr)
        self.assertTrue(ours.stdout.strip())

    def test_unchanged_starter(self):
        self.assert_same('show()')

    def test_interpreter_options(self):
        self.assert_same('show()', '-O', '-B', '-W', 'ignore::UserWarning', '-X', 'utf8')

    def test_folder_umask_nice_and_cpus(self):
        self.assert_same('show()\nos.chdir("/usr"); os.umask(0o27); os.nice(3); os.sched_setaffinity(0, [0])\nshow()')

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
