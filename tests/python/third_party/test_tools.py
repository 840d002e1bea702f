"""Tools that run programs which start processes: coverage, pytest, CPython's regrtest."""

import importlib.util
import multiprocessing
import os
import sys
import unittest

from process.script import UNDER_PYHOST, ScriptCase, run
from requirement import needs


@needs('coverage')
class CoverageTest(ScriptCase):
    """coverage puts its own `_bootstrap` into BaseProcess, and sends a patch to children of spawn."""

    PROGRAM = '''
        import multiprocessing

        def work(x):
            if x > 100:
                return 'missed'
            return x + 1

        if __name__ == '__main__':
            context = multiprocessing.get_context({method!r})
            child = context.Process(target=work, args=(1,))
            child.start()
            child.join()
            with context.Pool(1) as pool:
                print(pool.map(work, [1, 2]))
                pool.close()
                pool.join()
    '''

    def test_lines_that_ran_in_children_are_covered(self):
        for method in multiprocessing.get_all_start_methods():
            with self.subTest(method):
                program = self.write('program.py', self.PROGRAM.format(method=method))
                self.write('.coveragerc', '''
                    [run]
                    concurrency = multiprocessing
                    parallel = true
                    source = .
                ''')
                self.assert_printed(run('-m', 'coverage', 'run', program, cwd=self.folder), '[2, 3]')
                data = [name for name in os.listdir(self.folder) if name.startswith('.coverage.')]
                self.assertEqual(len(data), 3, data)  # the program, the process, the worker
                self.assertEqual(run('-m', 'coverage', 'combine', '-q', cwd=self.folder).code, 0)
                report = run('-m', 'coverage', 'report', '-m', cwd=self.folder)
                self.assertRegex(report.stdout, r'program\.py +\d+ +1 +\d+% +6\n', report)


@needs('pytest')
class PytestTest(ScriptCase):
    def test_children_write_into_what_pytest_captures(self):
        methods = multiprocessing.get_all_start_methods()
        if not UNDER_PYHOST:
            methods.remove('forkserver')  # its children write to where the server was started
        self.write('test_it.py', '''
            import multiprocessing, os, sys
            import concurrent.futures
            import pytest

            def say(text):
                print(text)
                sys.stdout.flush()
                os.write(2, text.encode() + b' on 2\\n')

            @pytest.mark.parametrize('method', METHODS)
            def test_process(method, capfd):
                child = multiprocessing.get_context(method).Process(target=say, args=('a child speaks',))
                child.start()
                child.join()
                assert child.exitcode == 0
                captured = capfd.readouterr()
                assert captured.out == 'a child speaks\\n'
                assert captured.err == 'a child speaks on 2\\n'

            @pytest.mark.parametrize('method', METHODS)
            def test_pool_and_executor(method, capfd):
                context = multiprocessing.get_context(method)
                with context.Pool(1) as pool:
                    pool.apply(say, ('a worker',))
                with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as executor:
                    executor.submit(say, 'another worker').result()
                assert capfd.readouterr().out == 'a worker\\nanother worker\\n'

            def test_queue(tmp_path):
                queue = multiprocessing.Queue()
                child = multiprocessing.Process(target=queue.put, args=(str(tmp_path),))
                child.start()
                assert queue.get(timeout=60) == str(tmp_path)
                child.join()
        '''.replace('METHODS', repr(methods)))
        outcome = run('-m', 'pytest', '-q', '-p', 'no:cacheprovider', cwd=self.folder)
        self.assertEqual(outcome.code, 0, outcome)
        self.assertIn(f'{2 * len(methods) + 1} passed', outcome.stdout)


class RegrtestTest(ScriptCase):
    """CPython's runner starts its workers as sys.executable."""

    @unittest.skipIf(importlib.util.find_spec('test.test_bisect') is None,
                     f'not installed: CPython\'s tests (package libpython{sys.version_info[0]}.{sys.version_info[1]}-testsuite)')
    def test_parallel_workers_run(self):
        outcome = run('-m', 'test', '-j2', 'test_bisect', 'test_bool', 'test_heapq', cwd=self.folder)
        self.assertEqual(outcome.code, 0, outcome)
        self.assertIn('All 3 tests OK.', outcome.stdout)


if __name__ == '__main__':
    unittest.main()
