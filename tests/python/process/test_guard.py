"""Scripts without the guard `if __name__ == '__main__':`, and where a child finds what it is to run.

Each script is run as its author would.  Under python3 most of them fail or never end, so it is no oracle here; what
must be as python3 does it says so.
"""

import os
import py_compile
import subprocess
import sys
import textwrap
import unittest
import zipfile

from script import UNDER_PYHOST, ScriptCase, run

WARNING = 'RuntimeWarning: each child process imports the main module'
REFUSAL = 'RuntimeError: An attempt has been made to start a new process before the'


@unittest.skipUnless(UNDER_PYHOST, 'python3 starts processes without end, or refuses')
class UnguardedTest(ScriptCase):
    def assert_helped(self, outcome, line, *lines):
        """It printed what its author expects, with one warning that names the line."""
        self.assert_printed(outcome, *lines)
        self.assertEqual(1, outcome.stderr.count('RuntimeWarning'), outcome)
        self.assertIn(f'script.py:{line}: {WARNING}', outcome.stderr)
        self.assertIn("if __name__ == '__main__':", outcome.stderr)

    def test_process(self):
        outcome = self.run_script('''\
            from multiprocessing import Process
            def worker():
                print('worker')
            Process(target=worker).start()
            ''')
        self.assert_helped(outcome, 4, 'worker')

    def test_pool(self):
        outcome = self.run_script('''\
            from multiprocessing import Pool
            def square(x):
                return x * x
            with Pool(3) as pool:
                print(pool.map(square, range(4)))
            ''')
        self.assert_helped(outcome, 4, '[0, 1, 4, 9]')

    def test_executor(self):
        outcome = self.run_script('''\
            from concurrent.futures import ProcessPoolExecutor
            def square(x):
                return x * x
            with ProcessPoolExecutor(2) as executor:
                print(list(executor.map(square, range(4))))
            ''')
        self.assert_printed(outcome, '[0, 1, 4, 9]')
        self.assertEqual(1, outcome.stderr.count('RuntimeWarning'), outcome)

    def test_manager(self):
        outcome = self.run_script('''\
            import multiprocessing
            numbers = multiprocessing.Manager().list([1])
            numbers.append(2)
            print(list(numbers))
            ''')
        self.assert_helped(outcome, 2, '[1, 2]')

    def test_processes_in_a_loop_warn_once(self):
        outcome = self.run_script('''\
            import multiprocessing
            def worker(number):
                print(f'{number}\\n', end='')
            children = [multiprocessing.Process(target=worker, args=(number,)) for number in range(4)]
            for child in children:
                child.start()
            for child in children:
                child.join()
            print('end')
            ''')
        self.assert_helped(outcome, 6, '0', '1', '2', '3', 'end')

    def test_start_in_a_function_names_the_call(self):
        outcome = self.run_script('''\
            import multiprocessing
            def worker():
                print('worker')
            def main():
                child = multiprocessing.Process(target=worker)
                child.start()
                child.join()
            main()
            ''')
        self.assert_helped(outcome, 8, 'worker')

    def test_handlers_do_not_swallow_the_stop(self):
        outcome = self.run_script('''\
            import multiprocessing
            def worker():
                print('worker', 'later' in globals())
            try:
                child = multiprocessing.Process(target=worker)
                child.start()
                child.join()
            except Exception:
                print('swallowed')
            later = True
            ''')
        self.assert_helped(outcome, 6, 'worker False')

    def test_bare_except_starts_no_second_generation(self):
        outcome = self.run_script('''\
            import multiprocessing
            def worker(name):
                print(name)
            for name in 'ab':
                try:
                    child = multiprocessing.Process(target=worker, args=(name,))
                    child.start()
                    child.join()
                except:
                    pass
            ''')
        self.assert_helped(outcome, 7, 'a', 'b')

    def test_thread_of_the_import_starts_nothing(self):
        outcome = self.run_script('''\
            import multiprocessing, os, threading, time
            def worker():
                print('worker')
            if multiprocessing.parent_process() or __name__ == '__mp_main__':
                def sneak():
                    while multiprocessing.parent_process() is None:
                        time.sleep(0.01)
                    try:
                        multiprocessing.Process(target=worker).start()
                    except BaseException as error:
                        print(type(error).__name__)
                threading.Thread(target=sneak).start()
            else:
                child = multiprocessing.Process(target=worker)
                child.start()
                child.join()
            ''')
        self.assert_printed(outcome, 'worker', 'MainImportEnds')

    def test_function_defined_after_the_first_start(self):
        outcome = self.run_script('''\
            import multiprocessing
            def first():
                pass
            child = multiprocessing.Process(target=first)
            child.start()
            child.join()
            def second():
                pass
            child = multiprocessing.Process(target=second)
            child.start()
            child.join()
            print(child.exitcode)
            ''')
        self.assertEqual('1\n', outcome.stdout, outcome)
        # Each Python version has its own words for it.
        self.assertRegex(outcome.stderr, "AttributeError: .*attribute 'second'")
        self.assertIn('set_start_method("fork", force=True)', outcome.stderr)

    def test_warning_can_be_made_an_error(self):
        path = self.write('script.py', '''\
            from multiprocessing import Process
            child = Process(target=print)
            child.start()
            child.join()
            raise SystemExit(child.exitcode)
            ''')
        outcome = run('-W', 'error::RuntimeWarning', path)
        self.assertEqual(1, outcome.code, outcome)


class ChosenTest(ScriptCase):
    """The start method is named by the program: as python3."""

    def assert_refused(self, outcome, text=REFUSAL):
        self.assertEqual(1, outcome.code, outcome)
        self.assertEqual('', outcome.stdout, outcome)
        self.assertIn('RuntimeError', outcome.stderr, outcome)
        if UNDER_PYHOST:
            self.assertIn(text, outcome.stderr, outcome)
            self.assertEqual(1, outcome.stderr.count('Traceback'), outcome)
            self.assertRegex(outcome.stderr, r'script\.py, line \d+')

    def test_get_context(self):
        for method in 'spawn', 'forkserver':
            with self.subTest(method=method):
                self.assert_refused(self.run_script(f'''\
                    import multiprocessing
                    def worker():
                        print('worker')
                    child = multiprocessing.get_context('{method}').Process(target=worker)
                    child.start()
                    child.join()
                    raise SystemExit(child.exitcode)
                    '''))

    def test_set_start_method(self):
        for method in 'spawn', 'forkserver':
            with self.subTest(method=method):
                self.assert_refused(self.run_script(f'''\
                    import multiprocessing
                    def worker():
                        print('worker')
                    multiprocessing.set_start_method('{method}')
                    child = multiprocessing.Process(target=worker)
                    child.start()
                    child.join()
                    raise SystemExit(child.exitcode)
                    '''), 'RuntimeError: context has already been set')

    def test_set_under_the_guard_but_started_outside(self):
        self.assert_refused(self.run_script('''\
            import multiprocessing
            if __name__ == '__main__':
                multiprocessing.set_start_method('spawn')
            children = [multiprocessing.Process(target=print) for _ in range(3)]
            for child in children:
                child.start()
            for child in children:
                child.join()
            raise SystemExit(child.exitcode)
            '''))

    def test_fork_needs_no_guard(self):
        outcome = self.run_script('''\
            import multiprocessing
            multiprocessing.set_start_method('fork')
            child = multiprocessing.Process(target=lambda: print('worker'))
            child.start()
            child.join()
            ''')
        self.assert_printed(outcome, 'worker')
        self.assertEqual('', outcome.stderr)


class MainModuleTest(ScriptCase):
    """Where a child finds the functions of the program."""

    SOURCE = '''\
        import multiprocessing, sys
        def worker(number):
            print('worker', number, __name__, flush=True)
        if __name__ == '__main__':
            multiprocessing.set_start_method(sys.argv[1])
            child = multiprocessing.Process(target=worker, args=(5,))
            child.start()
            child.join()
        '''

    def each_method(self):
        return [('spawn', 'worker 5 __mp_main__'), ('forkserver', 'worker 5 __mp_main__'), ('fork', 'worker 5 __main__')]

    def test_script(self):
        path = self.write('script.py', self.SOURCE)
        for method, line in self.each_method():
            self.assert_printed(run(path, method), line)
            self.assert_printed(run(os.path.basename(path), method, cwd=self.folder), line)

    def test_script_without_suffix(self):
        path = self.write('script', self.SOURCE)
        for method, line in self.each_method():
            self.assert_printed(run(path, method), line)

    def test_module_of_a_package(self):
        self.write('package/__init__.py', '')
        self.write('package/sibling.py', '')
        self.write('package/module.py', '        from . import sibling\n' + self.SOURCE)
        for method, line in self.each_method():
            self.assert_printed(run('-m', 'package.module', method, cwd=self.folder), line)

    def test_compiled_script(self):
        path = py_compile.compile(self.write('script.py', self.SOURCE), os.path.join(self.folder, 'compiled.pyc'))
        for method, line in self.each_method():
            self.assert_printed(run(path, method), line)

    def test_main_module_that_fails(self):
        # The fork server of 3.14 imports the main module first, and what fails there is not told.
        for method in ('spawn', 'forkserver') if UNDER_PYHOST or sys.version_info < (3, 14) else ('spawn',):
            outcome = self.run_script(f'''\
                import multiprocessing
                if __name__ != '__main__':
                    raise OSError('not again')
                multiprocessing.set_start_method('{method}')
                child = multiprocessing.Process(target=print)
                child.start()
                child.join()
                print(child.exitcode)
                ''')
            self.assertEqual('1\n', outcome.stdout, outcome)
            self.assertIn('OSError: not again', outcome.stderr)

    @unittest.skipUnless(UNDER_PYHOST, 'python3 starts workers without end')
    def test_pool_whose_workers_cannot_import_the_main_module(self):
        for method in 'spawn', 'forkserver':
            outcome = self.run_script(f'''\
                import multiprocessing
                if __name__ != '__main__':
                    raise OSError('not again')
                multiprocessing.set_start_method('{method}')
                with multiprocessing.Pool(2) as pool:
                    pool.map(abs, [1, 2])
                ''')
            self.assertEqual(1, outcome.code, outcome)
            self.assertRegex(outcome.stderr, 'PoolFailedError: .*: 3 workers ended .*before it could take a call')
            # The third death ends the pool, whose second worker may have been replaced by then.
            self.assertLessEqual(outcome.stderr.count('OSError: not again'), 4, outcome)

    def test_main_module_that_exits(self):
        outcome = self.run_script('''\
            import multiprocessing, sys
            if __name__ != '__main__':
                sys.exit(9)
            multiprocessing.set_start_method('spawn')
            child = multiprocessing.Process(target=print)
            child.start()
            child.join()
            print(child.exitcode)
            ''')
        self.assert_printed(outcome, '9')

    def test_objects_of_main_cross_both_ways(self):
        outcome = self.run_script('''\
            import multiprocessing
            class Point:
                def __init__(self, x):
                    self.x = x
            def move(conn):
                point = conn.recv()
                conn.send(Point(point.x + 1))
            if __name__ == '__main__':
                multiprocessing.set_start_method('spawn')
                here, there = multiprocessing.Pipe()
                child = multiprocessing.Process(target=move, args=(there,))
                child.start()
                here.send(Point(4))
                point = here.recv()
                print(type(point) is Point, point.x)
                child.join()
            ''')
        self.assert_printed(outcome, 'True 5')


@unittest.skipUnless(UNDER_PYHOST, 'python3 does not import these main modules in a child')
class LazyMainModuleTest(MainModuleTest):
    """Main modules that a child imports only when it needs something of them."""

    test_script = test_script_without_suffix = test_module_of_a_package = test_compiled_script = None
    test_main_module_that_fails = test_main_module_that_exits = test_objects_of_main_cross_both_ways = None
    test_pool_whose_workers_cannot_import_the_main_module = None

    def test_command(self):
        for method, line in self.each_method():
            self.assert_printed(run('-c', textwrap.dedent(self.SOURCE), method), line)
            self.assert_printed(run('-Wignore', '-Bc', textwrap.dedent(self.SOURCE), method), line)

    def test_stdin(self):
        for method, line in self.each_method():
            self.assert_printed(run('-', method, stdin=textwrap.dedent(self.SOURCE)), line)

    def test_stdin_from_a_file(self):
        path = self.write('script.py', self.SOURCE)
        for method, line in self.each_method():
            with open(path) as file:
                finished = subprocess.run([sys.executable, '-', method], stdin=file, capture_output=True, text=True)
            self.assertEqual((0, line + '\n'), (finished.returncode, finished.stdout), finished.stderr)

    def test_folder(self):
        self.write('program/__main__.py', self.SOURCE)
        for method, line in self.each_method():
            self.assert_printed(run(os.path.join(self.folder, 'program'), method), line)

    def test_zip_file(self):
        path = os.path.join(self.folder, 'program.zip')
        with zipfile.ZipFile(path, 'w') as archive:
            archive.writestr('__main__.py', textwrap.dedent(self.SOURCE))
        for method, line in self.each_method():
            self.assert_printed(run(path, method), line)

    def test_package(self):
        self.write('package/__init__.py', '')
        self.write('package/__main__.py', self.SOURCE)
        for method, line in self.each_method():
            self.assert_printed(run('-m', 'package', method, cwd=self.folder), line)

    def test_unguarded_command(self):
        outcome = run('-c', '''if 1:
            import multiprocessing
            def worker(): print('worker', flush=True)
            child = multiprocessing.Process(target=worker)
            child.start(); child.join()
            ''')
        self.assert_printed(outcome, 'worker')
        self.assertEqual(1, outcome.stderr.count('RuntimeWarning'), outcome)

    def test_command_is_not_run_again_without_need(self):
        outcome = run('-c', '''if 1:
            import multiprocessing
            print('once', flush=True)
            child = multiprocessing.Process(target=print, args=('worker',))
            child.start(); child.join()
            ''')
        self.assert_printed(outcome, 'once', 'worker')
        self.assertEqual('', outcome.stderr)

    def test_pool_of_a_command(self):
        outcome = run('-c', '''if 1:
            import multiprocessing
            def square(x): return x * x
            with multiprocessing.Pool(2) as pool:
                print(pool.map(square, range(4)))
            ''')
        self.assert_printed(outcome, '[0, 1, 4, 9]')


if __name__ == '__main__':
    unittest.main()
