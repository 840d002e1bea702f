#!/usr/bin/env python3
"""How processes end, and how their parent sees it: an exit code, a text, an exception, a signal.

    pyhost examples/process_exit_code.py
"""

import os
import signal
import sys
from multiprocessing import Process


def succeed():
    print(f'hello from {__name__}')


def fail_with(code):
    sys.exit(code)


def divide(a, b):
    return a / b


def crash():
    os.kill(os.getpid(), signal.SIGSEGV)


def main():
    children = [
        Process(name='succeeds', target=succeed),
        Process(name='exits with 3', target=fail_with, args=(3,)),
        Process(name='exits with a text', target=fail_with, args=('the text of sys.exit',)),
        Process(name='raises', target=divide, args=(1, 0)),
        Process(name='crashes', target=crash),
    ]
    for child in children:
        child.start()
        child.join()
        sys.stderr.flush()
        print(f'{child.name:18} exitcode {child.exitcode:4}   {child!r}', flush=True)


if __name__ == '__main__':
    main()
