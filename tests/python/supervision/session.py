"""What the tests of this folder share: a script run in a session of its own, and what it leaves behind."""

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
import unittest
import uuid

SECONDS = 30  # how long anything may take before a test fails

PRELUDE = '''
import multiprocessing as mp, os, resource, signal, subprocess, sys, threading, time
import _pyhost

def nothing(): pass
def sleep(seconds=600): time.sleep(seconds)
def leave(code): sys.exit(code)

def wait_until(true, seconds=20):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, 'took too long'
        time.sleep(0.002)
    return True

def is_gone(pid):
    try:
        with open(f'/proc/{pid}/stat') as file:
            return file.read().rsplit(')', 1)[1].split()[0] in 'ZX'
    except OSError:
        return True

def spares_of(server):
    """The pids of the children that a fork server keeps ready."""
    with open(f'/proc/{server}/task/{server}/children') as file:
        children = file.read().split()
    return [int(pid) for pid in children if command_of(pid).startswith('pyhost-spare')]

def command_of(pid):
    try:
        with open(f'/proc/{pid}/cmdline') as file:
            return file.read()
    except OSError:
        return ''

def start(target, *args, **options):
    process = CONTEXT.Process(target=target, args=args, **options)
    process.start()
    return process
'''


def marked(mark):
    """(pid, command line) of the living processes with `mark` in their environment."""
    found = []
    for pid in filter(str.isdigit, os.listdir('/proc')):
        try:
            with open(f'/proc/{pid}/environ', 'rb') as file:
                if mark not in file.read():
                    continue
            with open(f'/proc/{pid}/stat') as file:
                if file.read().rsplit(')', 1)[1].split()[0] in 'ZX':
                    continue
            with open(f'/proc/{pid}/cmdline', 'rb') as file:
                found.append((int(pid), file.read().replace(b'\0', b' ').decode()))
        except OSError:
            continue
    return found


class SessionCase(unittest.TestCase):
    """Runs scripts; checks after each that no process of it is left."""

    maxDiff = None

    def setUp(self):
        self.folder = tempfile.TemporaryDirectory(prefix='supervision-test-')
        self.addCleanup(self.folder.cleanup)
        self.mark = b'PYHOST_TEST_MARK=' + uuid.uuid4().hex.encode()
        self.addCleanup(self.kill_marked)

    def kill_marked(self):
        for pid, _command in marked(self.mark):
            os.kill(pid, signal.SIGKILL)

    def path(self, name):
        """A path in the test's folder."""
        return os.path.join(self.folder.name, name)

    def for_every_user(self):
        """Options of a run that changes users: this program and the working directory may lie in a folder that is its
        owner's alone (/root), so it runs an installed copy, elsewhere.
        """
        os.chmod(self.folder.name, 0o755)
        os.mkdir(self.path('bin'))
        program = shutil.copy(sys.executable, self.path('bin'))
        shutil.copytree(os.path.dirname(os.path.dirname(multiprocessing.__file__)), self.path('lib/pyhost'))
        return {'program': program, 'cwd': self.folder.name}

    def run_script(self, body, main, method='spawn', *, left=(), program=sys.executable, gone_after=4,
                   **options):
        """What the script prints; it must exit with 0.  `left`: words of command lines that may stay behind; `gone_after`:
        seconds that the others may take to end.
        """
        source = (PRELUDE + f'CONTEXT = mp.get_context({method!r})\n' + textwrap.dedent(body)
                  + "\nif __name__ == '__main__':\n" + textwrap.indent(textwrap.dedent(main), '    '))
        with open(self.path('script.py'), 'w') as file:
            file.write(source)
        name, value = self.mark.decode().split('=')
        environment = {**os.environ, name: value, **options.pop('env', {})}
        code = options.pop('code', 0)
        result = subprocess.run([program, self.path('script.py')], env=environment, capture_output=True, text=True,
                                timeout=SECONDS, **options)
        self.assertEqual(result.returncode, code, result.stdout + result.stderr)
        self.stderr = result.stderr
        self.assert_nobody_left(left, gone_after)
        return result.stdout

    def assert_nobody_left(self, except_for=(), gone_after=4):
        """Every process of the session ends within a moment (seconds)."""
        end = time.monotonic() + gone_after
        while True:
            left = [entry for entry in marked(self.mark) if not any(word in entry[1] for word in except_for)]
            if not left:
                return
            self.assertLess(time.monotonic(), end, f'still there: {left}')
            time.sleep(0.01)
