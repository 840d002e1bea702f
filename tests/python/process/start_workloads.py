"""The workloads of compare_starts.py, run in a process of their own: start_workloads.py NAME [MODULE].

Imports nothing that a small script would not, as children by spawn import it again; MODULE, where given, is imported
by the main module in parent and children alike.
"""

import os
import sys
import time

REPEATS = 40
WARM_UP = 5

if len(sys.argv) > 2:
    __import__(sys.argv[2])


def nothing():
    pass


def idle(ready, end):
    ready.send(None)
    end.recv()


def milliseconds(work):
    """The median time of one call, once everything is warm."""
    for _ in range(WARM_UP):
        work()
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return sorted(times)[REPEATS // 2] * 1e3


def start_and_join(method):
    import multiprocessing
    context = multiprocessing.get_context(method)

    def run():
        process = context.Process(target=nothing)
        process.start()
        process.join()
    return milliseconds(run)


def plain_fork():
    def run():
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
    return milliseconds(run)


def memory(method):
    """MB of one idle child, each shared page counted by its share (PSS)."""
    import multiprocessing
    context = multiprocessing.get_context(method)
    ready, child_ready = context.Pipe()
    end, child_end = context.Pipe()
    process = context.Process(target=idle, args=(child_ready, child_end))
    process.start()
    ready.recv()
    with open(f'/proc/{process.pid}/smaps_rollup') as file:
        kilobytes = next(int(line.split()[1]) for line in file if line.startswith('Pss:'))
    end.send(None)
    process.join()
    return kilobytes / 1024


WORKLOADS = {
    'spawn': lambda: start_and_join('spawn'),
    'forkserver': lambda: start_and_join('forkserver'),
    'fork': lambda: start_and_join('fork'),
    'os.fork': plain_fork,
    'memory, spawn': lambda: memory('spawn'),
    'memory, forkserver': lambda: memory('forkserver'),
}

if __name__ == '__main__':
    print(WORKLOADS[sys.argv[1]]())
