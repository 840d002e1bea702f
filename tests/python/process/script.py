"""What the tests of this folder share: which program they run under, and running scripts with it."""

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
import unittest

UNDER_PYHOST = importlib.util.find_spec('_pyhost') is not None
SECONDS = 60  # how long anything may take before a test fails


class Outcome:
    """How a run ended."""

    def __init__(self, finished):
        self.code = finished.returncode
        self.stdout = finished.stdout
        self.stderr = finished.stderr

    def __repr__(self):
        return f'exit code {self.code}\n--- stdout\n{self.stdout}--- stderr\n{self.stderr}'


def run(*arguments, stdin='', **options):
    """Runs this very interpreter with the arguments."""
    return Outcome(subprocess.run([sys.executable, *map(str, arguments)], input=stdin, capture_output=True, text=True,
                                  timeout=SECONDS, **options))


class ScriptCase(unittest.TestCase):
    """A test case with a folder of its own."""

    maxDiff = None

    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix='process-test-')
        self.addCleanup(shutil.rmtree, self.folder)

    def write(self, name, text):
        """Writes a file; returns its path."""
        path = os.path.join(self.folder, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, 'w') as file:
            file.write(textwrap.dedent(text))
        return path

    def run_script(self, text, *arguments, name='script.py', **options):
        """Writes a script and runs it."""
        return run(self.write(name, text), *arguments, **options)

    def assert_printed(self, outcome, *lines):
        """The run succeeded and printed these lines, in any order."""
        self.assertEqual(0, outcome.code, outcome)
        self.assertEqual(sorted(lines), sorted(outcome.stdout.splitlines()), outcome)
