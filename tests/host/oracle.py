"""What the tests of the command line share: run the same case under pyhost and python3, and compare.

python3, the interpreter that pyhost was built for, is the oracle: no expected output is written down here.
Environment: PYHOST names the program to test, PYHOST_ORACLE the python3 (default: /usr/bin/python3).
"""

import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import unittest

PYTHON = os.environ.get("PYHOST_ORACLE", "/usr/bin/python3")
TIMEOUT = 60  # seconds after which a run counts as hanging

# What would change a run from outside.
_SCRUBBED = ("VIRTUAL_ENV", "COLUMNS", "LANG", "LANGUAGE", "TERM")


def pyhost():
    """Path of the pyhost to test."""
    path = os.environ.get("PYHOST")
    if not path:
        raise RuntimeError("set PYHOST to the pyhost program that is to be tested")
    return os.path.abspath(path)


def clean_environment(**changes):
    """The caller's environment without what changes Python's behaviour; a value of None removes a variable."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "PYHOST", "LC_")) and name not in _SCRUBBED
    }
    environment["LANG"] = "C.UTF-8"
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    environment.update(changes)
    return {name: value for name, value in environment.items() if value is not None}


def normalized(output, program):
    """Output without what must differ: the program's path and name (as a thread's), and addresses of objects."""
    output = output.replace(os.fsencode(program), b"<program>")
    output = output.replace(b"[%s] (most recent call first)" % os.fsencode(os.path.basename(program)),
                            b"[<thread>] (most recent call first)")
    return re.sub(rb"0x[0-9a-f]{6,}", b"0x<address>", output)


class Outcome:
    """How a run ended: exit code (negative: a signal), stdout, stderr."""

    def __init__(self, program, arguments, finished):
        self.command = [program, *arguments]
        self.code = finished.returncode
        self.stdout = normalized(finished.stdout, program)
        self.stderr = normalized(finished.stderr, program)

    def __repr__(self):
        return f"{self.command}: exit {self.code}\nstdout: {self.stdout!r}\nstderr: {self.stderr!r}"


def run(program, *arguments, stdin=b"", environment=None, **options):
    """Run a program to its end, in a clean environment, and return the Outcome."""
    if environment is None:
        environment = clean_environment()
    finished = subprocess.run(
        [program, *arguments], input=stdin, env=environment, capture_output=True, timeout=TIMEOUT, **options
    )
    return Outcome(program, arguments, finished)


class OracleTestCase(unittest.TestCase):
    """A case with a scratch folder that is the working directory of what it runs."""

    maxDiff = None

    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="pyhost-test-"))
        self.addCleanup(shutil.rmtree, self.folder)

    def write(self, name, text):
        """Write a file in the scratch folder; returns its path."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    def run_pyhost(self, *arguments, **options):
        """Run pyhost in the scratch folder."""
        return run(pyhost(), *arguments, **{"cwd": self.folder, **options})

    def run_python(self, *arguments, **options):
        """Run the oracle in the scratch folder."""
        return run(PYTHON, *arguments, **{"cwd": self.folder, **options})

    def assert_same(self, *arguments, **options):
        """pyhost and python3 print the same and exit alike; returns pyhost's outcome."""
        expected = self.run_python(*arguments, **options)
        actual = self.run_pyhost(*arguments, **options)
        context = f"\n{expected}\n{actual}"
        self.assertEqual(expected.stdout, actual.stdout, context)
        self.assertEqual(expected.stderr, actual.stderr, context)
        self.assertEqual(expected.code, actual.code, context)
        return actual
