"""joblib and the loky that it brings.  Runs under pyhost and under python3, which is the oracle.

One program for each backend, as starting workers takes most of the time; each line that it prints states a fact.
"""

import unittest

from process.script import ScriptCase
from requirement import needs


@needs('joblib', 'numpy')
class ParallelTest(ScriptCase):
    PROGRAM = '''
        import os, sys, tempfile
        import numpy
        from joblib import Parallel, delayed

        def square(x):
            return x * x

        def divide(x, y):
            return x / y

        def squares(n):
            return Parallel(n_jobs=2)(delayed(square)(i) for i in range(n))

        def look_at(array, row):
            return type(array).__name__, float(array[row].sum())

        if __name__ == '__main__':
            with Parallel(n_jobs=2, backend={backend!r}) as parallel:
                print('in order:', parallel(delayed(square)(i) for i in range(50)) == [i * i for i in range(50)])
                print('in this process:', os.getpid() in parallel(delayed(os.getpid)() for _ in range(4)))
                print('nested:', parallel(delayed(squares)(i) for i in range(3)))
                array = numpy.ones((200, 10_000))
                seen = parallel(delayed(look_at)(array, i) for i in range(4))
                print('large array:', set(seen))
                with tempfile.NamedTemporaryFile() as file:
                    array = numpy.memmap(file.name, dtype='float64', mode='w+', shape=(20, 1000))
                    array[:] = 1
                    print('mapped array:', set(parallel(delayed(look_at)(array, i) for i in range(4))))
                try:
                    parallel(delayed(divide)(1, i) for i in (1, 0))
                except ZeroDivisionError as error:
                    print('failed:', error)
            with Parallel(n_jobs=2, backend={backend!r}) as parallel:
                print('again:', parallel(delayed(square)(i) for i in range(3)))
    '''
    FACTS = (
        'in order: True', 'in this process: False', 'nested: [[], [0], [0, 1]]', "large array: {('memmap', 10000.0)}",
        "mapped array: {('memmap', 1000.0)}", 'failed: division by zero', 'again: [0, 1, 4]',
    )

    def test_loky(self):
        self.assert_printed(self.run_script(self.PROGRAM.format(backend='loky')), *self.FACTS)

    def test_multiprocessing(self):
        self.assert_printed(self.run_script(self.PROGRAM.format(backend='multiprocessing')), *self.FACTS)


@needs('joblib', 'numpy')
class MemmappingPoolTest(ScriptCase):
    def test_large_arrays_are_mapped_both_ways_of_calling(self):
        self.assert_printed(self.run_script('''
            import numpy
            from joblib.pool import MemmappingPool

            def look_at(array):
                return type(array).__name__, float(array.sum())

            def square(x):
                return x * x

            if __name__ == '__main__':
                small, large = numpy.ones(10), numpy.ones(1 << 18)
                with MemmappingPool(2, max_nbytes=1 << 20) as pool:
                    print('apply:', pool.apply(look_at, (small,)), pool.apply(look_at, (large,)))
                    print('map:', pool.map(look_at, [large, small], 1))
                    print('ints:', pool.map(square, range(5)), list(pool.imap(square, range(5), 2)))
        '''), "apply: ('ndarray', 10.0) ('memmap', 262144.0)", "map: [('memmap', 262144.0), ('ndarray', 10.0)]",
            'ints: [0, 1, 4, 9, 16] [0, 1, 4, 9, 16]')


@needs('joblib')
class LokyTest(ScriptCase):
    def test_an_executor_is_reused_until_a_worker_crashes(self):
        self.assert_printed(self.run_script('''
            import os, signal
            from joblib.externals.loky import get_reusable_executor
            from joblib.externals.loky.process_executor import TerminatedWorkerError

            def square(x):
                return x * x

            def die():
                os.kill(os.getpid(), signal.SIGKILL)

            class Stubborn:
                def __reduce__(self):
                    raise ValueError('cannot be pickled')

            if __name__ == '__main__':
                executor = get_reusable_executor(max_workers=2)
                print('map:', list(executor.map(square, range(5))))
                print('reused:', get_reusable_executor(max_workers=2) is executor)
                print('lambda:', executor.submit(lambda x: x + 1, 1).result(timeout=30))
                print('unpicklable:', type(executor.submit(square, Stubborn()).exception(timeout=30)).__name__)
                try:
                    executor.submit(die).result(timeout=30)
                except TerminatedWorkerError:
                    print('the crash is told')
                again = get_reusable_executor(max_workers=2)
                print('another one:', again is not executor, again.submit(square, 7).result(timeout=30))
        '''), 'map: [0, 1, 4, 9, 16]', 'reused: True', 'lambda: 2', 'unpicklable: PicklingError', 'the crash is told',
            'another one: True 49')


if __name__ == '__main__':
    unittest.main()
