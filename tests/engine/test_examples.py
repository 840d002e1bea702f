"""The examples of engines do what they say."""

import os
import pathlib
import re
import subprocess
import unittest

SCRIPTS = pathlib.Path(__file__).resolve().parents[2] / 'examples' / 'engine' / 'scripts'
FRAMES = os.environ.get('PYHOST_FLOCK_FRAMES', '60')

try:
    import numpy  # noqa: F401  The scripts use it.
    HAS_NUMPY = True
except ImportError:
    HAS_NUMPY = False


def run(program, *arguments):
    return subprocess.run([os.environ[program], *arguments], capture_output=True, text=True, timeout=240)


class Examples(unittest.TestCase):
    def test_the_smallest_engine(self):
        done = run('ENGINE_MINIMAL', str(SCRIPTS))
        self.assertEqual(done.returncode, 0, done)
        self.assertIn('npc 7: leave the forest, urgency 0.3', done.stdout)
        self.assertIn('height at (1, 2): 12.5 OK', done.stdout)
        self.assertIn('SIGSEGV', done.stdout)

    def test_without_its_scripts_it_says_what_is_missing(self):
        done = run('ENGINE_MINIMAL', '/nowhere')
        self.assertEqual(done.returncode, 1, done)
        self.assertRegex(done.stdout, "no module named 'brain'.*searched: .*/nowhere")

    @unittest.skipUnless(HAS_NUMPY, 'numpy is not installed')
    def test_the_flock_survives_its_scripts(self):
        done = run('ENGINE_FLOCK_COMPARE', '--scripts', str(SCRIPTS), '--frames', FRAMES)
        self.assertEqual(done.returncode, 0, done)
        self.assertIn('all came to the same world: yes', done.stdout)
        self.assertRegex(done.stdout, r'frame \d+, wander: .*SIGSEGV')
        self.assertRegex(done.stdout, r'frame \d+, wander: DEADLINE_EXCEEDED')
        self.assertRegex(done.stdout, r'wander: .*ZeroDivisionError')
        self.assertIn('frame 80: wander.py was mended and reloaded: OK', done.stdout)
        self.assertIn('failures after mending 0', done.stdout)
        for name in 'without scripts', 'an interpreter in the engine', '1 worker', '2 workers', '2 workers, one script broken':
            self.assertRegex(done.stdout, rf'(?m)^{re.escape(name)} +[\d.]+ +[\d.]+ +[\d.]+ +[\d.]+$')

    def test_arguments_that_are_none(self):
        self.assertEqual(run('ENGINE_FLOCK_COMPARE', '--frames', 'many').returncode, 2)
        done = run('ENGINE_FLOCK_COMPARE', '--scripts', '/nowhere')
        self.assertEqual(done.returncode, 2)
        self.assertIn('/nowhere', done.stderr)


if __name__ == '__main__':
    unittest.main()
