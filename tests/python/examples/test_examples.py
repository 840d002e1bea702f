"""Every example runs and prints what its docstring promises."""

import importlib.util
import os
import re
import subprocess
import sys
import unittest

FOLDER = os.path.abspath(os.path.join(os.path.dirname(__file__), '..', '..', '..', 'examples'))
UNDER_PYHOST = importlib.util.find_spec('_pyhost') is not None


class ExamplesTest(unittest.TestCase):
    def run_example(self, name, *arguments):
        finished = subprocess.run([sys.executable, os.path.join(FOLDER, name), *arguments], capture_output=True, text=True,
                                  timeout=120)
        self.assertEqual(0, finished.returncode, finished.stdout + finished.stderr)
        return finished

    def test_process_exit_code(self):
        finished = self.run_example('process_exit_code.py')
        codes = re.findall(r'^(\w[\w ]*?) +exitcode +(-?\d+) ', finished.stdout, re.M)
        self.assertEqual([('succeeds', '0'), ('exits with 3', '3'), ('exits with a text', '1'), ('raises', '1'),
                          ('crashes', '-11')], codes)
        self.assertIn('the text of sys.exit', finished.stderr)
        self.assertIn('ZeroDivisionError', finished.stderr)

    def test_pipeline(self):
        finished = self.run_example('pipeline.py', FOLDER)
        files = sum(name.endswith('.py') for _, _, names in os.walk(FOLDER) for name in names)
        self.assertRegex(finished.stdout, rf'(?m)^\.py +{files} files')
        self.assertEqual('', finished.stderr)

    @unittest.skipUnless(UNDER_PYHOST, "python3's Pool waits for ever")
    def test_worker_crash(self):
        lines = self.run_example('worker_crash.py').stdout.splitlines()
        self.assertEqual([f'work({n}) = {n * n}' for n in (0, 1, 2, 4, 5)], [line for line in lines if ' = ' in line][:5])
        failed = [line for line in lines if 'failed' in line]
        self.assertEqual(1, len(failed), lines)
        self.assertRegex(failed[0], r'^work\(3\) failed: WorkerLostError: .*SIGKILL')
        self.assertEqual('and the pool goes on: work(7) = 49', lines[-1])

    def test_tokenize_stdlib(self):
        finished = self.run_example('tokenize_stdlib.py', '--processes', '2', '--files', '30', '--top', '3')
        self.assertRegex(finished.stdout, r'(?m)^most used of [\d,]+ names:$')
        self.assertRegex(finished.stdout, r'(?m)^30 files with [\d,]+ functions and classes')
        hosts = re.findall(r'(?m)^ +\d+ +(\d+) +[\d.]+$', finished.stdout)
        self.assertEqual(30, sum(map(int, hosts)))
        self.assertRegex(finished.stdout, r'(?m)^one process reads them in [\d.]+ s: 2 are [\d.]+ times as fast$')
        self.assertEqual('', finished.stderr)  # no progress where there is no terminal

    def test_tokenize_stdlib_help_and_bad_input(self):
        self.assertIn('--processes', self.run_example('tokenize_stdlib.py', '--help').stdout)
        for arguments in (['--processes', '0'], ['/no/such/folder']):
            finished = subprocess.run([sys.executable, os.path.join(FOLDER, 'tokenize_stdlib.py'), *arguments],
                                      capture_output=True, text=True)
            self.assertEqual(2, finished.returncode)

    def test_tokenize_stdlib_shows_progress_on_a_terminal(self):
        import pty
        leader, follower = pty.openpty()
        try:
            finished = subprocess.run([sys.executable, os.path.join(FOLDER, 'tokenize_stdlib.py'), '--files', '5',
                                       '--no-baseline'], stdout=subprocess.PIPE, stderr=follower, timeout=120)
            self.assertEqual(0, finished.returncode)
            self.assertIn(b'5/5 files', os.read(leader, 10000))
        finally:
            os.close(leader)
            os.close(follower)


if __name__ == '__main__':
    unittest.main()
