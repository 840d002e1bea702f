"""How fast plain Python code runs under pyhost, as a multiple of python3's time.

Run by `meson test --benchmark`, or by hand: PYHOST=... compare_speed.py [ROUNDS].  The two programs alternate, so that
what else the machine does hits both; each figure is the median of the rounds' ratios.  Fails where the geometric mean,
or the start, exceeds the limit.
"""

import json
import math
import os
import statistics
import subprocess
import sys
import time

import oracle

LIMIT = 1.15

# Each takes some tens of milliseconds.  The program prints the best of three runs of each, in seconds.
WORKLOADS = r'''
import ast, json, math, pickle, re, time

def bytecode_loop():
    total = 0
    for i in range(1000000):
        total += i & 3

def fibonacci(n): return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)

def calls(): fibonacci(23)

class Point:
    def __init__(self, x): self.x = x; self.y = 1
    def sum(self): return self.x + self.y

def attributes():
    point = Point(3)
    for i in range(200000):
        point.y = point.sum() - point.x

def dictionaries():
    counts = {}
    for i in range(200000):
        key = 'k%d' % (i % 5000)
        counts[key] = counts.get(key, 0) + 1
    return sorted(counts.items())

def strings():
    return ''.join(f'{i}:{i * 2}'.replace(':', '-').upper().split('-')[0] for i in range(80000))

def floats():
    x, total = 0.5, 0.0
    for i in range(300000):
        x = 3.7 * x * (1 - x)
        total += math.sqrt(x)

def comprehensions():
    for _ in range(10):
        squares = [i * i for i in range(20000) if i % 3]
        texts = {i: str(i) for i in range(5000)}
        rests = {x % 97 for x in squares}

DATA = {'a': [1, 2, 3, {'b': 'text', 'c': 1.5}] * 60, 'd': {str(i): i for i in range(300)}}
def json_round_trips():
    for _ in range(80): json.loads(json.dumps(DATA))

def pickle_round_trips():
    for _ in range(200): pickle.loads(pickle.dumps(DATA))

TEXT = 'foo bar 123 baz_42 qux@example.com ' * 200
def regular_expressions():
    for _ in range(4):
        re.findall(r'\w+@\w+\.\w+|\d+', TEXT); re.sub(r'[aeiou]+', '*', TEXT)

def exceptions():
    for i in range(100000):
        try:
            if i % 3 == 0: raise ValueError(i)
        except ValueError: pass

def generators():
    def count(n):
        for i in range(n): yield i
    for _ in range(5): sum(count(60000))

def sorting():
    values = [(i * 7919) % 100003 for i in range(60000)]
    sorted(values, key=lambda value: -value)

def objects():
    for _ in range(3): [Point(i) for i in range(30000)]

def compiling():
    with open(ast.__file__) as source: compile(source.read(), 'ast', 'exec')

def big_integers():
    x = 1
    for i in range(1, 1000): x *= i
    for i in range(100): pow(3, x % 100000 + i, 10 ** 40 + 7)

results = {}
for name, function in list(globals().items()):
    if not name.startswith('_') and type(function) is type(calls) and name not in ('fibonacci',):
        best = float('inf')
        for _ in range(3):
            start = time.perf_counter(); function(); best = min(best, time.perf_counter() - start)
        results[name] = best
print(json.dumps(results))
'''


def start_time(program, starts=20):
    """Seconds that `program -c pass` takes: the median of some starts."""
    times = []
    for _ in range(starts):
        begin = time.perf_counter()
        subprocess.run([program, "-c", "pass"], check=True, env=oracle.clean_environment())
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def measure(program):
    """Seconds of each workload, and of a start."""
    finished = subprocess.run(
        [program, "-c", WORKLOADS], check=True, capture_output=True, env=oracle.clean_environment(PYTHONHASHSEED="0")
    )
    return {"start": start_time(program), **json.loads(finished.stdout)}


def main():
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    ratios = {}
    for _ in range(rounds):
        base, ours = measure(oracle.PYTHON), measure(oracle.pyhost())
        for name, seconds in ours.items():
            ratios.setdefault(name, []).append(seconds / base[name])
    medians = {name: statistics.median(values) for name, values in ratios.items()}
    for name, ratio in medians.items():
        print(f"{name:20} {ratio:.3f}")
    start = medians.pop("start")
    mean = math.exp(statistics.fmean(map(math.log, medians.values())))
    print(f"{'geometric mean':20} {mean:.3f} (without start)")
    if mean > LIMIT or start > LIMIT:
        sys.exit(f"slower than {LIMIT} times {os.path.basename(oracle.PYTHON)}")


if __name__ == "__main__":
    main()
