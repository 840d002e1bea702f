"""The command line: what to run, options, errors, exit codes.  Each case runs under pyhost and python3."""

import os
import unittest
import zipfile

import oracle
from oracle import OracleTestCase, clean_environment

SHOW = "import sys; print(sys.argv, sys.flags, sys.path[:1], __name__, sys._xoptions, sys.warnoptions)\n"


class WhatToRun(OracleTestCase):
    def test_command(self):
        self.assert_same("-c", SHOW, "a", "-b", "--c")

    def test_script_with_arguments(self):
        self.write("script.py", SHOW + "print(__file__)\n")
        self.assert_same("script.py", "-x", "--version")

    def test_script_on_a_pipe(self):
        """It is opened once, or its writer would lose the reader, and the program its text."""
        os.mkfifo(self.folder / "pipe")
        command = '(echo "print(6 * 7)" > pipe; echo "written: $?" >&2) & "$0" pipe; wait'
        outcomes = [oracle.run("/bin/sh", "-c", command, program, cwd=self.folder) for program in (oracle.PYTHON, oracle.pyhost())]
        for outcome in outcomes:
            self.assertEqual((0, b"42\n", b"written: 0\n"), (outcome.code, outcome.stdout, outcome.stderr), outcome)

    def test_script_after_double_dash(self):
        self.write("script.py", SHOW)
        self.assert_same("--", "script.py", "a")

    def test_module(self):
        self.write("mod.py", SHOW)
        self.assert_same("-m", "mod", "a", "-c")

    def test_package_with_main(self):
        self.write("package/__init__.py", "print('package')")
        self.write("package/__main__.py", SHOW)
        self.assert_same("-m", "package", "a")

    def test_module_of_the_standard_library(self):
        self.assert_same("-m", "json.tool", stdin=b'{"b": 1, "a": [2]}')

    def test_standard_input_as_dash(self):
        self.assert_same("-", "a", stdin=SHOW.encode())

    def test_standard_input_without_arguments(self):
        self.assert_same(stdin=SHOW.encode())

    def test_folder(self):
        self.write("app/__main__.py", SHOW)
        self.assert_same("app", "a")

    def test_zip_file(self):
        with zipfile.ZipFile(self.folder / "app.zip", "w") as archive:
            archive.writestr("__main__.py", SHOW)
        self.assert_same("app.zip", "a")

    def test_script_with_a_first_line_to_skip(self):
        self.write("script.py", "this is no Python\nprint('run')\n")
        self.assert_same("-x", "script.py")

    def test_script_in_another_encoding(self):
        self.write("latin.py", b"# coding: latin-1\nprint(ascii('\xe9'))\n")
        self.assert_same("latin.py")


class BadInput(OracleTestCase):
    def test_missing_script(self):
        self.assertEqual(2, self.assert_same("missing.py").code)

    def test_script_in_missing_folder(self):
        self.assert_same("no/such/folder/script.py")

    def test_unreadable_script(self):
        self.write("secret.py", "print(1)").chmod(0)
        self.folder.chmod(0o755)
        nobody = {}
        if os.geteuid() == 0:  # root reads everything
            nobody = {"user": 65534, "group": 65534, "extra_groups": []}
            try:
                self.run_python("-c", "", **nobody), self.run_pyhost("-c", "", **nobody)
            except PermissionError as error:
                self.skipTest(f"only root can run {error.filename}")
        self.assertEqual(2, self.assert_same("secret.py", **nobody).code)

    def test_script_with_a_null_byte(self):
        self.write("null.py", b"print(1)\0\n")
        self.assert_same("null.py")

    def test_folder_without_main(self):
        (self.folder / "empty").mkdir()
        self.assert_same("empty")

    def test_zip_file_without_main(self):
        with zipfile.ZipFile(self.folder / "app.zip", "w") as archive:
            archive.writestr("other.py", "")
        self.assert_same("app.zip")

    def test_syntax_error(self):
        self.write("script.py", "print('before')\ndef f(:\n    pass\n")
        self.assert_same("script.py")

    def test_syntax_error_in_command(self):
        self.assert_same("-c", "1 +")

    def test_undecodable_script(self):
        self.write("script.py", b"# \xff\xfe\nprint(1)\n")
        self.assert_same("script.py")

    def test_uncaught_exception(self):
        self.write("script.py", "def f(n):\n    return 1 // n\nf(0)\n")
        self.assertEqual(1, self.assert_same("script.py").code)

    def test_chained_exceptions(self):
        self.assert_same("-c", "try:\n    {}['a']\nexcept KeyError as e:\n    raise ValueError('b') from e")

    def test_missing_module(self):
        self.assert_same("-m", "no_such_module")

    def test_missing_submodule(self):
        self.assert_same("-m", "json.no_such_module")

    def test_package_without_main(self):
        self.assert_same("-m", "email")

    def test_unknown_options(self):
        for option in ("-z", "-Z", "--unknown", "--versionn", "-c", "-m", "-X", "-W", "--check-hash-based-pycs"):
            with self.subTest(option=option):
                self.assert_same(option)

    def test_bad_values(self):
        for arguments in (
            ("--check-hash-based-pycs", "sometimes", "-c", ""),
            ("-X", "utf8=2", "-c", ""),
            ("-X", "tracemalloc=x", "-c", ""),
            ("-X", "frozen_modules=x", "-c", ""),
            ("-X", "int_max_str_digits=1", "-c", ""),
            ("-W", "nonsense", "-c", ""),
        ):
            with self.subTest(arguments=arguments):
                self.assert_same(*arguments)


class ExitCodes(OracleTestCase):
    def test_system_exit(self):
        for value in ("", "None", "0", "1", "3", "255", "256", "-1", "2**40", "'text'", "''", "(1, 2)", "1.5", "True", "[]"):
            with self.subTest(value=value):
                self.assert_same("-c", f"import sys; sys.exit({value})")

    def test_system_exit_whose_text_cannot_be_shown(self):
        self.assert_same("-c", "class C:\n    def __str__(self): raise ValueError\nraise SystemExit(C())")

    def test_system_exit_subclass(self):
        self.assert_same("-c", "class Leave(SystemExit): pass\nraise Leave(7)")

    def test_exit_in_a_module(self):
        self.write("mod.py", "raise SystemExit(4)")
        self.assert_same("-m", "mod")

    def test_os_exit(self):
        self.assert_same("-c", "import os; print('kept in the buffer'); os._exit(9)")

    def test_atexit_runs_in_order(self):
        self.assert_same("-c", "import atexit\nfor n in 1, 2, 3: atexit.register(print, n)\nraise SystemExit(5)")

    def test_error_in_atexit(self):
        self.assert_same("-c", "import atexit; atexit.register(lambda: 1 / 0)")

    def test_non_daemon_threads_are_awaited(self):
        code = "import threading, time\nthreading.Thread(target=lambda: (time.sleep(.1), print('late'))).start()"
        self.assert_same("-c", code)

    def test_subinterpreters_that_nobody_destroyed(self):
        code = (
            "import sys\n"
            "try: import _xxsubinterpreters as interpreters\n"
            "except ImportError: import _interpreters as interpreters\n"
            "other = interpreters.create()\n"
            "interpreters.run_string(other, 'print(\"in the other\")')\n"
            "print('in the main one')\n"
        )
        self.assert_same("-c", code)
        self.assert_same("-c", code + "sys.exit(3)")

    def test_closed_standard_output(self):
        code = "import sys; sys.stdout.write('x' * 10); sys.stdout.flush()"
        for redirection in (">&-", ">/dev/full"):
            with self.subTest(redirection=redirection):
                outcomes = [
                    program("-c", f'exec "$0" -c "$1" {redirection}', name, code)
                    for program, name in self.shells()
                ]
                self.assertEqual(outcomes[0], outcomes[1])

    def test_output_that_cannot_be_flushed_at_exit(self):
        outcomes = [program("-c", 'exec "$0" -c "print(1)" >/dev/full', name) for program, name in self.shells()]
        self.assertEqual(outcomes[0], outcomes[1])
        self.assertEqual(120, outcomes[0][0])

    def shells(self):
        """For pyhost and the oracle: a function that runs the shell, and the program's path."""
        def runner(program):
            def call(*arguments):
                outcome = oracle.run("/bin/sh", *arguments, cwd=self.folder)
                return outcome.code, outcome.stdout, oracle.normalized(outcome.stderr, program)

            return call

        return [(runner(program), program) for program in (oracle.pyhost(), oracle.PYTHON)]


class Options(OracleTestCase):
    def test_flags(self):
        for options in (
            ["-B"], ["-E"], ["-I"], ["-O"], ["-OO"], ["-P"], ["-s"], ["-S"], ["-u"], ["-q"], ["-b"], ["-bb"],
            ["-d"], ["-R"], ["-i"], ["-X", "dev"], ["-X", "utf8"], ["-X", "utf8=0"], ["-X", "faulthandler"],
            ["-X", "showrefcount"], ["-X", "no_debug_ranges"], ["-X", "frozen_modules=off"], ["-X", "tracemalloc=3"],
            ["-X", "warn_default_encoding"], ["-X", "pycache_prefix=cache"], ["-X", "int_max_str_digits=0"],
            ["-X", "own=value"], ["-W", "error"], ["-Wignore", "-Wdefault::UserWarning"], ["-IS"], ["-ISB"], ["-OOu"],
            ["--check-hash-based-pycs", "always"], ["--check-hash-based-pycs", "never"], ["-ESsB", "-bq"],
        ):
            with self.subTest(options=options):
                self.assert_same(*options, "-c", SHOW + "print(sys.path, __debug__, sys.dont_write_bytecode)")

    def test_options_from_the_environment(self):
        for name, value in {
            "PYTHONOPTIMIZE": "2", "PYTHONDEBUG": "1", "PYTHONNOUSERSITE": "1", "PYTHONUNBUFFERED": "1",
            "PYTHONSAFEPATH": "1", "PYTHONWARNINGS": "error,ignore::UserWarning", "PYTHONDEVMODE": "1",
            "PYTHONPATH": "/nowhere:relative", "PYTHONHASHSEED": "7", "PYTHONUTF8": "1", "PYTHONIOENCODING": "latin-1:replace",
            "PYTHONPYCACHEPREFIX": "/nowhere", "PYTHONINTMAXSTRDIGITS": "1000",
            "PYTHONFAULTHANDLER": "1", "PYTHONTRACEMALLOC": "2", "PYTHONPLATLIBDIR": "lib", "PYTHONNODEBUGRANGES": "1",
        }.items():
            environment = clean_environment(**{name: value})
            code = SHOW + "print(sys.path, hash('a') if sys.flags.hash_randomization == 0 else '', sys.stdout.encoding)"
            with self.subTest(variable=name, value=value):
                self.assert_same("-c", code, environment=environment)
                self.assert_same("-E", "-c", code, environment=environment)

    def test_hash_seed(self):
        for seed in ("42", "nonsense"):
            with self.subTest(seed=seed):
                self.assert_same("-c", "print(hash('text'))", environment=clean_environment(PYTHONHASHSEED=seed))

    def test_python_home_that_is_none(self):
        environment = clean_environment(PYTHONHOME="/nowhere")
        self.assertEqual(1, self.assert_same("-c", "print(1)", environment=environment).code)

    def test_version(self):
        self.assert_same("--version")
        self.assert_same("-V")
        self.assert_same("-VV")

    def test_help_is_that_of_python_and_some_lines(self):
        for option in ("-h", "-?", "--help", "-Eh"):
            with self.subTest(option=option):
                expected, actual = self.run_python(option), self.run_pyhost(option)
                self.assertEqual(0, actual.code)
                self.assertTrue(actual.stdout.startswith(expected.stdout), actual)
                self.assertIn(b"pyhost", actual.stdout[len(expected.stdout) :])

    def test_help_is_not_printed_for_what_merely_looks_like_it(self):
        self.assert_same("-c", "import sys; print(sys.argv)", "-h", "--help")
        self.assert_same("-W", "ignore::h", "-V")

    def test_verbose(self):
        actual = self.run_pyhost("-v", "-c", "pass")
        self.assertEqual(0, actual.code)
        self.assertIn(b"import 'site'", actual.stderr)

    def test_inspect_after_a_command(self):
        self.assert_same("-i", "-c", "x = 6", stdin=b"print(x * 7)\n")

    def test_inspect_after_an_exception(self):
        self.write("script.py", "y = 3\nraise ValueError(y)\n")
        self.assert_same("-i", "script.py", stdin=b"print(y)\nimport sys; sys.exit(3)\n")

    def test_inspect_from_within(self):
        self.write("script.py", "import os; os.environ['PYTHONINSPECT'] = '1'; z = 5")
        self.assert_same("script.py", stdin=b"print(z)\n")

    def test_warnings_go_to_stderr(self):
        self.assert_same("-W", "always", "-c", "import warnings; warnings.warn('careful')")
        self.assert_same("-W", "error", "-c", "import warnings; warnings.warn('careful')")

    def test_bytes_warning(self):
        self.assert_same("-bb", "-c", "str(b'')")

    def test_unbuffered(self):
        self.assert_same("-u", "-c", "import sys, os; print('a', end=''); os.write(1, b'b'); print('c')")


class InternalModes(OracleTestCase):
    """pyhost's own first argument."""

    def test_unknown_mode_is_a_clear_error(self):
        actual = self.run_pyhost("--pyhost-internal=nonsense")
        self.assertEqual((2, b""), (actual.code, actual.stdout))
        self.assertIn(b'pyhost: unknown internal mode "nonsense"', actual.stderr)

    def test_reserved_as_first_argument_only(self):
        self.assert_same("-c", "import sys; print(sys.argv)", "--pyhost-internal=nonsense")
        self.assert_same("-B", "--pyhost-internal=nonsense")


if __name__ == "__main__":
    unittest.main()
