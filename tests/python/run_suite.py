"""Runs a file of unittest cases under a program (pyhost, or python3 as the oracle) and sees what it leaves behind.

usage: run_suite.py PROGRAM FILE [ARGUMENT ...]        arguments are unittest's: -v, -f, names of cases

Each case has a time limit: past it, the stacks of all threads go to stderr and the suite ends.  Afterwards no process
that the suite started may be left, and nothing new in /dev/shm; what ends by itself within a few seconds is all right.
Processes are found because this one is made the reaper of orphans; those left are named, and ended.
"""

import faulthandler
import importlib
import os
import signal
import subprocess
import sys
import time
import unittest

CASE_SECONDS = 120
GRACE_SECONDS = 5
SHARED_MEMORY = '/dev/shm'
PR_SET_CHILD_SUBREAPER = 36


class LimitedResult(unittest.TextTestResult):
    """Ends the process when a case takes too long."""

    def startTest(self, test):
        super().startTest(test)
        faulthandler.dump_traceback_later(CASE_SECONDS, exit=True)

    def stopTest(self, test):
        faulthandler.cancel_dump_traceback_later()
        super().stopTest(test)


def run_cases(path, arguments):
    """In the program under test: imports the file as a module, so that children find it by name, and runs it."""
    folder, file = os.path.split(os.path.abspath(path))
    sys.path.insert(0, folder)
    module = importlib.import_module(os.path.splitext(file)[0])
    unittest.main(module, argv=[path, *arguments], testRunner=unittest.TextTestRunner(resultclass=LimitedResult))


def become_reaper():
    import ctypes
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        sys.exit('run_suite: prctl(PR_SET_CHILD_SUBREAPER) failed')


def reap():
    """Reaps what has ended; the command lines of the children that are left, {pid: text}."""
    left = {}
    for entry in os.listdir('/proc'):
        if not entry.isdigit():
            continue
        try:
            with open(f'/proc/{entry}/stat') as file:
                state, parent = file.read().rpartition(')')[2].split()[:2]
            if int(parent) != os.getpid():
                continue
            if state == 'Z':
                os.waitpid(int(entry), 0)
                continue
            with open(f'/proc/{entry}/cmdline') as file:
                left[int(entry)] = file.read().replace('\0', ' ')
        except (FileNotFoundError, ProcessLookupError, ChildProcessError):
            continue
    return left


def leftovers(shared_before):
    """(processes, names in /dev/shm) that are still there when the grace is over."""
    deadline = time.monotonic() + GRACE_SECONDS
    while True:
        processes = reap()
        shared = set(os.listdir(SHARED_MEMORY)) - shared_before
        if not processes and not shared or time.monotonic() > deadline:
            return processes, shared
        time.sleep(0.02)


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    if sys.argv[1] == '--cases':
        run_cases(sys.argv[2], sys.argv[3:])
        return
    program, path, *arguments = sys.argv[1:]
    become_reaper()
    shared_before = set(os.listdir(SHARED_MEMORY))
    # Users' output is buffered: where the caller's is not, what goes wrong with it at the end would not be seen.
    environment = {name: value for name, value in os.environ.items() if name != 'PYTHONUNBUFFERED'}
    code = subprocess.run([program, os.path.abspath(__file__), '--cases', path, *arguments], env=environment).returncode
    processes, shared = leftovers(shared_before)
    for pid, command in processes.items():
        print(f'left behind: process {pid}: {command}', file=sys.stderr)
        os.kill(pid, signal.SIGKILL)
    for name in sorted(shared):
        print(f'left behind: {SHARED_MEMORY}/{name}', file=sys.stderr)
    sys.exit(code or bool(processes or shared))


if __name__ == '__main__':
    main()
