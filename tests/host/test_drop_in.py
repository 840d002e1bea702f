"""The drop-in modules: where they come from, whatever the options, and that they are ordinary modules."""

import os
import pathlib
import unittest

from oracle import OracleTestCase, clean_environment

MODULES = pathlib.Path(__file__).resolve().parents[2] / "modules"
PACKAGE = str(MODULES / "multiprocessing" / "__init__.py").encode() + b"\n"
SPEC = "import importlib.util as u; print(u.find_spec('multiprocessing').origin)"


class DropIn(OracleTestCase):
    def output(self, *arguments, **options):
        """What pyhost prints, which must end well."""
        outcome = self.run_pyhost(*arguments, **options)
        self.assertEqual((0, b""), (outcome.code, outcome.stderr), outcome)
        return outcome.stdout

    def test_served_whatever_the_options(self):
        for options in ([], ["-I"], ["-S"], ["-E"], ["-P"], ["-s"], ["-ISE"], ["-OO"], ["-X", "frozen_modules=off"], ["-X", "dev"]):
            with self.subTest(options=options):
                self.assertEqual(PACKAGE, self.output(*options, "-c", SPEC))

    def test_served_in_place_of_shadows(self):
        """As the standard library's own cannot be found by accident, neither can a stranger's."""
        self.write("multiprocessing.py", "raise SystemExit('shadow')")
        self.write("script.py", SPEC)
        self.assertEqual(PACKAGE, self.output("script.py"))
        self.assertEqual(PACKAGE, self.output("-c", SPEC, environment=clean_environment(PYTHONPATH=str(self.folder))))

    def test_other_modules_are_the_standard_librarys(self):
        self.assert_same("-c", "import json, concurrent.futures as c; print(json.__spec__, c.__spec__, c.__file__)")

    def test_search_path_is_untouched(self):
        self.assert_same("-c", "import sys; print(sys.path, sys.path_hooks)")

    def test_one_more_finder_right_before_the_last(self):
        code = "import sys; print([getattr(f, '__name__', repr(f)) for f in sys.meta_path])"
        self.assertEqual(
            b"['BuiltinImporter', 'FrozenImporter', '<pyhost drop-in finder>', 'PathFinder']\n", self.output("-I", "-S", "-c", code)
        )

    def test_served_before_site_runs(self):
        """A .pth file, which site executes, sees it already."""
        base = self.folder / "base"
        version = self.output("-c", "import sys; print('%d.%d' % sys.version_info[:2], end='')").decode()
        self.write(f"base/lib/python{version}/site-packages/early.pth", SPEC + "\n")
        environment = clean_environment(PYTHONUSERBASE=str(base))
        self.assertEqual(PACKAGE, self.output("-c", "pass", environment=environment))

    def test_served_in_subinterpreters(self):
        code = (
            "try: import _interpreters as i; run = i.exec\n"
            "except ImportError: import _xxsubinterpreters as i; run = i.run_string\n"
            f"run(i.create(), {SPEC!r})"
        )
        self.assertEqual(PACKAGE, self.output("-W", "ignore", "-c", code))

    def test_imported_afresh(self):
        """Removing a module and importing it again, as tests do, finds the same file and adds no finder."""
        code = (
            "import sys, importlib\n"
            "for name in ('posix', 'multiprocessing'): sys.modules.pop(name, None)\n"
            "import posix\n"
            f"{SPEC}\n"
            "print(sum('drop-in' in repr(f) for f in sys.meta_path))"
        )
        self.assertEqual(PACKAGE + b"1\n", self.output("-c", code))

    def test_finder_can_be_taken_away(self):
        code = "import sys; sys.meta_path[:] = [f for f in sys.meta_path if 'drop-in' not in repr(f)]\n" + SPEC
        self.assert_same("-c", code)

    def test_finder_declines_what_is_not_its_own(self):
        code = (
            "import sys; [f] = [f for f in sys.meta_path if 'drop-in' in repr(f)]\n"
            "print([f.find_spec(n) for n in ('json', 'multiprocessing.pool', 'concurrent', '', '\\udcff')])\n"
            "print(f.find_spec('multiprocessing', None, None).name, f.find_spec(fullname='multiprocessing', path=None).name)\n"
            "for bad in ((), (1,), (b'x',)):\n"
            "    try: f.find_spec(*bad)\n"
            "    except TypeError as error: print('TypeError')"
        )
        self.assertEqual(
            b"[None, None, None, None, None]\nmultiprocessing multiprocessing\n" + 3 * b"TypeError\n", self.output("-c", code)
        )

    def test_ordinary_modules(self):
        """A source loader, cached bytecode, resources, and source for tracebacks and inspect."""
        code = (
            "import importlib.util, importlib.resources, pkgutil\n"
            "spec = importlib.util.find_spec('multiprocessing')\n"
            "print(type(spec.loader).__name__, spec.has_location, spec.cached == importlib.util.cache_from_source(spec.origin))\n"
            "print(spec.loader.get_source('multiprocessing') == open(spec.origin).read())\n"
            "print('connection' in [m.name for m in pkgutil.iter_modules(spec.submodule_search_locations)])\n"
        )
        self.assertEqual(b"SourceFileLoader True True\nTrue\nTrue\n", self.output("-c", code))

    def test_submodule_is_run_by_runpy(self):
        outcome = self.run_pyhost("-m", "multiprocessing.no_such_module")
        expected = self.run_python("-m", "multiprocessing.no_such_module")
        self.assertEqual((expected.code, expected.stderr), (outcome.code, outcome.stderr))

    def test_script_folder_with_the_names_own_package(self):
        """A checkout folder called pyhost in the working folder does not stand in for the package."""
        (self.folder / "pyhost").mkdir()
        code = "import importlib.util as u; s = u.find_spec('pyhost'); print(s is None or s.origin)"
        expected = str(MODULES / "pyhost" / "__init__.py").encode() + b"\n"
        self.assertEqual(expected, self.output("-c", code))


if __name__ == "__main__":
    unittest.main()
