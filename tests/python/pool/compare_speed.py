"""Pool's speed under pyhost against python3's standard library, in alternation, as ratios.

usage: compare_speed.py [--rounds N] [PYHOST] [PYTHON3]     (default: PYHOST and PYHOST_ORACLE of the environment)

Each round runs both programs once, and gives a ratio; printed are medians over the rounds, and the lowest and the highest
ratio.  Two workers, start method spawn, trivial function unless said otherwise.  The last column is what the design asks for.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

GOALS = {
    'apply, round trip': 50,
    'map, chunksize 1, per task': 10,
    'map, automatic, range, per task': 2.5,
    'map, automatic, list, per task': 1.6,
    'imap_unordered, per task': 8,
    'imap_unordered, generator, per task': 8,
    'apply_async, 5,000 outstanding, per task': 10,
    'executor, round trip': 20,
    'executor, 4,000 outstanding, per task': 10,
    '64 MiB of numpy, there and back': 15,
}


def same(x):
    return x


def seconds(work):
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measure():
    """Name -> seconds for one task, in this program."""
    import multiprocessing
    with multiprocessing.get_context('spawn').Pool(2) as pool:
        pool.map(same, range(1000), 1)
        times = {
            'apply, round trip': seconds(lambda: [pool.apply(same, (1,)) for _ in range(2000)]) / 2000,
            'map, chunksize 1, per task': seconds(lambda: pool.map(same, range(20000), 1)) / 20000,
            'map, automatic, range, per task': seconds(lambda: pool.map(same, range(400000))) / 400000,
        }
        items = list(range(400000))
        times['map, automatic, list, per task'] = seconds(lambda: pool.map(same, items)) / 400000
        times['imap_unordered, per task'] = seconds(lambda: list(pool.imap_unordered(same, range(20000)))) / 20000
        times['imap_unordered, generator, per task'] = seconds(
            lambda: list(pool.imap_unordered(same, (i for i in range(20000))))) / 20000
        times['apply_async, 5,000 outstanding, per task'] = seconds(lambda: outstanding(pool)) / 5000
        times.update(measure_executor(multiprocessing.get_context('spawn')))
        try:
            import numpy
        except ImportError:
            return times
        array = numpy.ones(8 << 20)
        for _ in range(4):  # the first array of each worker has it import numpy
            pool.apply(same, (array,))
        times['64 MiB of numpy, there and back'] = statistics.median(
            seconds(lambda: pool.apply(same, (array,))) for _ in range(5))
    return times


def measure_executor(context):
    from concurrent.futures import ProcessPoolExecutor
    with ProcessPoolExecutor(2, context) as executor:
        list(executor.map(same, range(1000)))
        return {
            'executor, round trip': seconds(lambda: [executor.submit(same, 1).result() for _ in range(2000)]) / 2000,
            'executor, 4,000 outstanding, per task': seconds(lambda: all_outstanding(executor)) / 4000,
        }


def all_outstanding(executor):
    calls = [executor.submit(same, i) for i in range(4000)]
    for call in calls:
        call.result()


def outstanding(pool):
    results = [pool.apply_async(same, (i,)) for i in range(5000)]
    for result in results:
        result.get()


def run(program):
    done = subprocess.run([program, os.path.abspath(__file__), '--measure'], check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--measure', action='store_true', help='measure in this program, as JSON')
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('programs', nargs='*')
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure()))
        return
    pyhost, python3 = arguments.programs or (os.environ['PYHOST'], os.environ['PYHOST_ORACLE'])
    ours, theirs = [], []
    for _ in range(arguments.rounds):
        ours.append(run(pyhost))
        theirs.append(run(python3))
    print(f'{"":42}{"pyhost":>12}{"python3":>14}{"ratio":>9}{"spread":>16}{"goal":>6}')
    for name in ours[0]:
        pairs = [(one[name], other[name]) for one, other in zip(ours, theirs)]
        ratios = sorted(other / one for one, other in pairs)
        mine, other = (statistics.median(column) * 1e6 for column in zip(*pairs))
        spread = f'{ratios[0]:.1f} to {ratios[-1]:.1f}'
        print(f'{name:42}{mine:9.3f} us{other:11.2f} us{statistics.median(ratios):9.1f}{spread:>16}{GOALS[name]:6}')


if __name__ == '__main__':
    sys.exit(main())
