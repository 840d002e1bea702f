"""Measures one workload in the program that runs this, and prints the figures as one line of JSON.

usage: measure.py NAME PEER SECONDS SHARE MODULE

PEER is '' for multiprocessing.  SHARE is the part of a workload's usual batch that is timed at once.  MODULE, if
not '', is imported by the main module, here and in children, as a larger program would.
"""

import json
import sys
import time

if sys.argv[5]:
    __import__(sys.argv[5])


def measure(workload, seconds, share):
    """The figures of one run: seconds for each operation, or the workload's own figure."""
    from workload import Figure
    count = max(1, round(workload.batch * share))
    if isinstance(workload, Figure):
        value, result = workload.run(1)
        return {'value': value, 'operations': 1, 'result': result}
    result = workload.run(count)  # warm-up
    batches = 0
    start = now = time.perf_counter()
    while now - start < seconds or not batches:
        if workload.run(count) != result:
            raise RuntimeError('two batches of the same work gave different results')
        batches += 1
        now = time.perf_counter()
    return {'value': (now - start) / (batches * count), 'operations': batches * count, 'result': result}


def main():
    from workload import load_all
    name, peer, seconds, share, _ = sys.argv[1:]
    workload = load_all()[name, peer]()
    workload.prepare()
    try:
        figures = measure(workload, float(seconds), float(share))
    finally:
        workload.finish()
    print(json.dumps(figures), flush=True)


if __name__ == '__main__':
    main()
