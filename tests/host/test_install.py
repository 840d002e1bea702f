"""An installed pyhost: found modules, no environment variables, and a tree that can be moved."""

import os
import shutil
import subprocess
import unittest

import oracle
from oracle import OracleTestCase, clean_environment

FILE = "import importlib.util as u; print(u.find_spec('multiprocessing').origin)"


@unittest.skipUnless(os.environ.get("PYHOST_BUILD"), "PYHOST_BUILD does not name the build folder to install from")
class Installed(OracleTestCase):
    def install(self):
        """Install into the scratch folder; returns the prefix."""
        subprocess.run(
            ["meson", "install", "--no-rebuild", "-C", os.environ["PYHOST_BUILD"], "--destdir", str(self.folder / "dest")],
            check=True, capture_output=True, env=clean_environment(PYTHONDONTWRITEBYTECODE=None), timeout=oracle.TIMEOUT,
        )
        [program] = (self.folder / "dest").glob("**/bin/pyhost")
        return program.parents[1]

    def test_finds_its_modules(self):
        prefix = self.install()
        outcome = oracle.run(str(prefix / "bin" / "pyhost"), "-I", "-c", FILE)
        self.assertEqual(f"{prefix}/lib/pyhost/multiprocessing/__init__.py\n".encode(), outcome.stdout, outcome)

    def test_runs_from_another_place(self):
        moved = shutil.move(self.install(), self.folder / "moved")
        (self.folder / "link").symlink_to(moved / "bin" / "pyhost")
        outcome = oracle.run(str(self.folder / "link"), "-I", "-c", FILE)
        self.assertEqual(f"{moved}/lib/pyhost/multiprocessing/__init__.py\n".encode(), outcome.stdout, outcome)

    def test_standard_library_is_that_of_python(self):
        program = str(self.install() / "bin" / "pyhost")
        code = "import sys, os; print(sys.path, sys.prefix, os.__file__)"
        self.assertEqual(self.run_python("-c", code).stdout, oracle.run(program, "-c", code, cwd=self.folder).stdout)

    def test_virtual_environment(self):
        prefix = self.install()
        environment = self.folder / "env"
        created = oracle.run(str(prefix / "bin" / "pyhost"), "-m", "venv", "--without-pip", "--copies", str(environment))
        self.assertEqual(0, created.code, created)
        outcome = oracle.run(str(environment / "bin" / "python"), "-c", FILE)
        self.assertEqual(f"{prefix}/lib/pyhost/multiprocessing/__init__.py\n".encode(), outcome.stdout, outcome)

    def test_environments_of_a_copy_where_another_python_lies_beside_pyhost(self):
        program = self.install() / "bin" / "pyhost"
        for name in ("python", "python3"):
            (program.parent / name).symlink_to(oracle.PYTHON)
        outer, inner = self.folder / "outer", self.folder / "inner"
        for creator, environment in ((program, outer), (outer / "bin" / "python", inner)):
            created = oracle.run(str(creator), "-m", "venv", "--without-pip", "--copies", str(environment))
            self.assertEqual(0, created.code, created)
            outcome = oracle.run(str(environment / "bin" / "python"), "-c", "import sys, pyhost; print(sys._base_executable, sys.prefix)")
            self.assertEqual(f"{program} {environment}\n".encode(), outcome.stdout, outcome)

    def test_modules_are_compiled(self):
        prefix = self.install()
        sources = list((prefix / "lib" / "pyhost").glob("**/*.py"))
        self.assertTrue(sources)
        code = (
            "import sys, importlib.util as u, pathlib\n"
            "from importlib._bootstrap_external import _code_to_timestamp_pyc as _\n"
            "for name in sys.argv[1:]:\n"
            "    data = pathlib.Path(u.cache_from_source(name)).read_bytes()\n"
            "    assert int.from_bytes(data[8:12], 'little') == int(pathlib.Path(name).stat().st_mtime), name\n"
        )
        outcome = oracle.run(str(prefix / "bin" / "pyhost"), "-c", code, *map(str, sources))
        self.assertEqual(0, outcome.code, outcome)

    def test_nothing_of_the_build_is_installed(self):
        prefix = self.install()
        kinds = {path.suffix for path in (prefix / "lib" / "pyhost").glob("**/*") if path.is_file()}
        self.assertEqual({".py", ".pyc"}, kinds)

    def test_installing_again_removes_what_is_no_more(self):
        stale = self.install() / "lib" / "pyhost" / "multiprocessing" / "stale.py"
        stale.write_text("")
        self.install()
        self.assertFalse(stale.exists())

    def test_missing_modules_are_a_clear_error_when_needed(self):
        prefix = self.install()
        shutil.rmtree(prefix / "lib")
        program = str(prefix / "bin" / "pyhost")
        self.assertEqual(b"1\n", oracle.run(program, "-c", "print(1)").stdout)
        outcome = oracle.run(program, "-c", "import multiprocessing")
        self.assertEqual(1, outcome.code)
        self.assertIn(f"(looked at: {prefix}/lib/pyhost)".encode(), outcome.stderr)
        self.assertIn(b"'multiprocessing'", outcome.stderr)

    def test_damaged_modules_are_never_replaced_by_the_standard_librarys(self):
        prefix = self.install()
        shutil.rmtree(prefix / "lib" / "pyhost" / "multiprocessing")
        outcome = oracle.run(str(prefix / "bin" / "pyhost"), "-c", "import multiprocessing")
        self.assertEqual(1, outcome.code)
        self.assertIn(f"(looked at: {prefix}/lib/pyhost/multiprocessing/__init__.py)".encode(), outcome.stderr)


if __name__ == "__main__":
    unittest.main()
