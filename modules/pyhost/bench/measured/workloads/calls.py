"""Pool and ProcessPoolExecutor, with two workers."""

import concurrent.futures
import multiprocessing
import os

from workload import CONTEXT, Workload

WORKERS = 2


def square(x):
    return x * x


def add(x, y):
    return x + y


def same(x):
    return x


def burn(x):
    """Some 5 ms of computing."""
    total = x
    for number in range(60000):
        total = (total * 31 + number) & 0xffffffff
    return total


class Pool(Workload):
    group = 'Pool'
    operation = 'call'
    workers = WORKERS

    def prepare(self):
        self.pool = multiprocessing.get_context(CONTEXT).Pool(self.workers)
        self.pool.map(square, range(self.workers * 4), chunksize=1)

    def finish(self):
        self.pool.close()
        self.pool.join()


class Apply(Pool):
    name = 'pool-apply'
    title = 'apply, one at a time'
    batch = 300
    quick = True

    def run(self, count):
        apply = self.pool.apply
        return sum(apply(square, (x,)) for x in range(count))


class ApplyAsync(Pool):
    name = 'pool-apply-async'
    title = 'apply_async and get, 5,000 outstanding'
    batch = 5000

    def run(self, count):
        results = [self.pool.apply_async(square, (x,)) for x in range(count)]
        return sum(result.get() for result in results)


class Map(Pool):
    name = 'pool-map'
    title = 'map, automatic chunks, a range of 400,000'
    batch = 400000
    quick = True

    def run(self, count):
        return sum(self.pool.map(square, range(count)))


class MapList(Pool):
    name = 'pool-map-list'
    title = 'map, automatic chunks, a list of 400,000'
    batch = 400000

    def run(self, count):
        return sum(self.pool.map(square, list(range(count))))


class MapOne(Pool):
    name = 'pool-map-1'
    title = 'map, chunksize 1'
    batch = 5000
    quick = True

    def run(self, count):
        return sum(self.pool.map(square, range(count), chunksize=1))


class StarMap(Pool):
    name = 'pool-starmap'
    title = 'starmap, automatic chunks, 100,000 pairs'
    batch = 100000

    def run(self, count):
        return sum(self.pool.starmap(add, [(x, 1) for x in range(count)]))


class Imap(Pool):
    name = 'pool-imap'
    title = 'imap'
    batch = 5000

    def run(self, count):
        return sum(self.pool.imap(square, range(count)))


class ImapUnordered(Pool):
    name = 'pool-imap-unordered'
    title = 'imap_unordered'
    batch = 5000

    def run(self, count):
        return sum(self.pool.imap_unordered(square, range(count)))


class PoolNumpy(Pool):
    name = 'pool-numpy'
    title = 'apply, 64 MiB numpy array there and back'
    batch = 2
    needs = ('numpy',)

    def prepare(self):
        import numpy
        super().prepare()
        self.array = numpy.arange(8 << 20, dtype=numpy.int64)

    def run(self, count):
        return sum(int(self.pool.apply(same, (self.array,))[-1]) for _ in range(count))


class Burn(Pool):
    name = 'pool-cpu'
    title = 'map of 5 ms computations, chunksize 1'
    batch = 40
    quick = True

    def run(self, count):
        return sum(self.pool.map(burn, range(count), chunksize=1))


def add_scaling(workers):
    """One workload for each number of workers that this machine has processors for."""
    type(f'Scaling{workers}', (Burn,), {
        'name': f'scaling-{workers}', 'title': f'5 ms computations, {workers} worker{"s" * (workers > 1)}',
        'group': 'Scaling', 'workers': workers, 'quick': False, '__module__': __name__})


for number in (1, 2, 4, 8, 16, 32, 64):
    if number <= len(os.sched_getaffinity(0)):
        add_scaling(number)


class Executor(Workload):
    group = 'ProcessPoolExecutor'
    operation = 'call'

    def prepare(self):
        self.executor = self.make()
        for future in [self.executor.submit(square, x) for x in range(8)]:
            future.result()

    def make(self):
        return concurrent.futures.ProcessPoolExecutor(WORKERS, mp_context=multiprocessing.get_context(CONTEXT))

    def finish(self):
        self.executor.shutdown()


class SubmitOne(Executor):
    name = 'executor-submit'
    title = 'submit and result, one at a time'
    batch = 300
    quick = True

    def run(self, count):
        submit = self.executor.submit
        return sum(submit(square, x).result() for x in range(count))


class SubmitMany(Executor):
    name = 'executor-4000'
    title = 'submit and result, 4,000 outstanding'
    batch = 4000

    def run(self, count):
        futures = [self.executor.submit(square, x) for x in range(count)]
        return sum(future.result() for future in futures)


class ExecutorMap(Executor):
    name = 'executor-map'
    title = 'map, chunksize 1'
    batch = 2000

    def run(self, count):
        return sum(self.executor.map(square, range(count)))


class AsCompleted(Executor):
    name = 'executor-as-completed'
    title = 'as_completed, 1,000 outstanding'
    batch = 1000

    def run(self, count):
        futures = [self.executor.submit(square, x) for x in range(count)]
        return sum(future.result() for future in concurrent.futures.as_completed(futures))


# ---- the same work by other libraries, where they are installed -----------------------------------------------------


class JoblibMap(MapOne):
    peer = 'joblib'
    needs = ('joblib',)

    def prepare(self):
        import joblib
        self.parallel = joblib.Parallel(n_jobs=WORKERS).__enter__()
        self.delayed = joblib.delayed(square)
        self.parallel(self.delayed(x) for x in range(8))

    def run(self, count):
        return sum(self.parallel(self.delayed(x) for x in range(count)))

    def finish(self):
        self.parallel.__exit__(None, None, None)


class Loky(SubmitMany):
    peer = 'loky'
    needs = ('loky',)

    def make(self):
        import loky
        return loky.ProcessPoolExecutor(WORKERS)


class Distributed(SubmitMany):
    peer = 'distributed'
    needs = ('distributed',)

    def prepare(self):
        import distributed
        self.cluster = distributed.LocalCluster(n_workers=WORKERS, threads_per_worker=1, dashboard_address=None)
        self.client = distributed.Client(self.cluster)
        self.client.gather(self.client.map(square, range(8), pure=False))

    def run(self, count):
        return sum(self.client.gather(self.client.map(square, range(count), pure=False)))

    def finish(self):
        self.client.close()
        self.cluster.close()
