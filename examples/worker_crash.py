#!/usr/bin/env python3
"""What a program sees when a worker dies in the middle of a call: that call fails, the others do not.

    pyhost examples/worker_crash.py

(Under python3 this program would wait for ever: its Pool does not notice.)
"""

import os
import signal
from multiprocessing import Pool


def work(number):
    """Squares a number; one of them kills the process it runs in."""
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number * number


def main():
    with Pool(2) as pool:
        calls = [(number, pool.apply_async(work, (number,))) for number in range(6)]
        for number, call in calls:
            try:
                print(f'work({number}) = {call.get(timeout=30)}')
            except Exception as error:
                print(f'work({number}) failed: {type(error).__name__}: {error}')
        print(f'and the pool goes on: work(7) = {pool.apply(work, (7,))}')


if __name__ == '__main__':
    main()
