"""sys.executable, sys.prefix and virtual environments."""

import os
import subprocess
import unittest

import oracle
from oracle import OracleTestCase, clean_environment, pyhost

SHOW = "import sys; print(sys.executable, sys._base_executable, sys.prefix, sys.base_prefix, sys.path, sep='\\n')"
PREFIXES = "import sys; print(sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix, sys.path)"


class Executable(OracleTestCase):
    def executable(self, *command, **options):
        """What sys.executable is in a pyhost that is started with this command."""
        options.setdefault("env", clean_environment())
        finished = subprocess.run(
            [*command, "-c", "import sys; print(sys.executable)"],
            capture_output=True, text=True, check=True, cwd=self.folder, timeout=oracle.TIMEOUT, **options,
        )
        return finished.stdout.strip()

    def test_absolute_path(self):
        self.assertEqual(pyhost(), self.executable(pyhost()))

    def test_through_a_symbolic_link(self):
        link = self.folder / "link"
        link.symlink_to(pyhost())
        self.assertEqual(str(link), self.executable(link))

    def test_relative_path(self):
        (self.folder / "link").symlink_to(pyhost())
        self.assertEqual(str(self.folder / "link"), self.executable("./link"))

    def test_found_on_path(self):
        environment = clean_environment(PATH=f"{os.path.dirname(pyhost())}:{os.environ['PATH']}")
        self.assertEqual(pyhost(), self.executable("/usr/bin/env", "pyhost", env=environment))

    def test_link_found_on_path(self):
        (self.folder / "bin").mkdir()
        (self.folder / "bin" / "snake").symlink_to(pyhost())
        environment = clean_environment(PATH=f"{self.folder}/bin:{os.environ['PATH']}")
        self.assertEqual(f"{self.folder}/bin/snake", self.executable("/usr/bin/env", "snake", env=environment))

    def test_unfindable_name_is_as_in_python(self):
        results = []
        for program in (pyhost(), oracle.PYTHON):
            finished = subprocess.run(
                ["nonsense", "-c", "import sys; print(repr(sys.executable), sys.prefix)"], executable=program,
                capture_output=True, env=clean_environment(PATH="/nowhere"), cwd=self.folder, timeout=oracle.TIMEOUT,
            )
            results.append((finished.returncode, finished.stdout, finished.stderr))
        self.assertEqual(results[1], results[0])

    def test_name_of_another_program(self):
        """The starter may call a program what it likes, or nothing; children are pyhost all the same."""
        script = self.write("start.py", "import multiprocessing as m, sys\n"
                                        "if __name__ == '__main__':\n"
                                        "    print(sys.executable)\n"
                                        "    m.Process(target=print, args=('child',)).start()\n")
        for name in ("", "python3"):
            with self.subTest(name=name):
                finished = subprocess.run([name, script], executable=pyhost(), capture_output=True, text=True,
                                          env=clean_environment(), cwd=self.folder, timeout=oracle.TIMEOUT)
                self.assertEqual((f"{os.path.realpath(pyhost())}\nchild\n", ""), (finished.stdout, finished.stderr))

    def test_children_of_subprocess_are_pyhost(self):
        code = "import sys, subprocess; subprocess.run([sys.executable, '-c', 'import sys; print(sys.executable)'], check=True)"
        self.assertEqual(b"<program>\n", self.run_pyhost("-c", code).stdout)

    def test_prefixes_and_path_are_those_of_python(self):
        for options in ([], ["-I"], ["-S"], ["-E"], ["-P"], ["-s"]):
            with self.subTest(options=options):
                self.assert_same(*options, "-c", PREFIXES)

    def test_another_library_beside_the_program_is_not_taken(self):
        """A link in PREFIX/bin, and another Python's library in PREFIX/lib, as in /usr/local."""
        version = self.run_python("-c", "import sys; print('%d.%d' % sys.version_info[:2], end='')").stdout.decode()
        self.write(f"lib/python{version}/os.py", "raise SystemExit('wrong library')")
        (self.folder / "bin").mkdir()
        link = self.folder / "bin" / "pyhost"
        link.symlink_to(pyhost())
        self.assertEqual(self.run_python("-c", PREFIXES).stdout, oracle.run(str(link), "-c", PREFIXES).stdout)


class VirtualEnvironments(OracleTestCase):
    def create(self, name, program, *options):
        """Create an environment in the scratch folder; returns its path as text."""
        finished = oracle.run(program, "-m", "venv", "--without-pip", *options, str(self.folder / name))
        self.assertEqual(0, finished.code, finished)
        return str(self.folder / name)

    def packages(self, environment):
        """The site-packages folder of an environment, with a module `inside` in it."""
        [folder] = (self.folder / environment / "lib").glob("python*/site-packages")
        (folder / "inside.py").write_text("print('inside')\n")
        return str(folder)

    def test_created_by_pyhost(self):
        environment = self.create("env", pyhost())
        packages = self.packages("env")
        for name in ("pyhost", "python", "python3"):
            with self.subTest(name=name):
                program = f"{environment}/bin/{name}"
                self.assertEqual(os.path.realpath(pyhost()), os.path.realpath(program))
                lines = oracle.run(program, "-c", SHOW).stdout.decode().splitlines()
                self.assertEqual("<program>", lines[0])
                self.assertEqual(environment, lines[2])
                self.assertIn(packages, lines[4])
                self.assertEqual(b"inside\n", oracle.run(program, "-m", "inside").stdout)

    def test_created_with_copies(self):
        environment = self.create("env", pyhost(), "--copies")
        self.packages("env")
        program = f"{environment}/bin/python"
        self.assertFalse(os.path.islink(program))
        self.assertEqual(b"inside\n", oracle.run(program, "-m", "inside").stdout)
        found = oracle.run(program, "-c", "import importlib.util as u; print(u.find_spec('multiprocessing').origin)")
        expected = self.run_pyhost("-c", "import importlib.util as u; print(u.find_spec('multiprocessing').origin)")
        self.assertEqual(expected.stdout, found.stdout, found)

    def test_with_pip_and_a_console_script(self):
        if self.run_python("-c", "import ensurepip").code:
            self.skipTest("ensurepip is not installed (package python3-venv)")
        environment = str(self.folder / "env")
        finished = oracle.run(pyhost(), "-m", "venv", environment)
        self.assertEqual(0, finished.code, finished)
        version = oracle.run(f"{environment}/bin/pip", "--version")
        self.assertEqual(0, version.code, version)
        self.assertIn(environment.encode(), version.stdout)
        with open(f"{environment}/bin/pip", "rb") as script:
            self.assertTrue(script.readline().startswith(b"#!" + environment.encode()))

    def test_environment_of_an_environment(self):
        inner = self.create("inner", f"{self.create('outer', pyhost())}/bin/python")
        self.assertEqual(os.path.realpath(pyhost()), os.path.realpath(f"{inner}/bin/python"))

    def test_environment_of_a_copied_environment(self):
        outer = f"{self.create('outer', pyhost(), '--copies')}/bin/python"
        base = "import sys, multiprocessing as m; print(sys._base_executable, sys.prefix, m.__file__)"
        copied, linked = self.create("copied", outer, "--copies"), self.create("linked", outer)
        self.assertEqual(os.path.realpath(pyhost()), os.path.realpath(f"{linked}/bin/python"))
        modules = self.run_pyhost("-c", "import multiprocessing as m; print(m.__file__, end='')").stdout.decode()
        for environment in (os.path.dirname(os.path.dirname(outer)), copied, linked):
            for name in ("pyhost", "python", "python3"):
                with self.subTest(environment=environment, name=name):
                    outcome = oracle.run(f"{environment}/bin/{name}", "-c", base)
                    self.assertEqual(f"{os.path.realpath(pyhost())} {environment} {modules}\n".encode(), outcome.stdout, outcome)

    def test_copied_from_a_link(self):
        (self.folder / "snake").symlink_to(pyhost())
        environment = self.create("env", str(self.folder / "snake"), "--copies")
        outcome = oracle.run(f"{environment}/bin/python", "-c", "import sys, multiprocessing; print(sys._base_executable)")
        self.assertEqual(f"{os.path.realpath(pyhost())}\n".encode(), outcome.stdout, outcome)

    def test_activated(self):
        environment = self.create("env", oracle.PYTHON)
        packages = self.packages("env")
        variables = clean_environment(VIRTUAL_ENV=environment)
        outcome = self.run_pyhost("-c", SHOW, environment=variables)
        expected = oracle.run(f"{environment}/bin/python", "-c", SHOW, cwd=self.folder)
        lines, expected_lines = outcome.stdout.decode().splitlines(), expected.stdout.decode().splitlines()
        self.assertEqual(["<program>", "<program>"], lines[:2])
        self.assertEqual(expected_lines[2:], lines[2:])
        self.assertIn(packages, lines[4])
        self.assertEqual(b"", outcome.stderr)
        self.assertEqual(b"inside\n", self.run_pyhost("-m", "inside", environment=variables).stdout)

    def test_activated_and_found_on_path(self):
        environment = self.create("env", oracle.PYTHON)
        path = f"{environment}/bin:{os.path.dirname(pyhost())}:{os.environ['PATH']}"
        finished = subprocess.run(
            ["/usr/bin/env", "pyhost", "-c", SHOW], capture_output=True, text=True, timeout=oracle.TIMEOUT,
            env=clean_environment(VIRTUAL_ENV=environment, PATH=path),
        )
        self.assertEqual([pyhost(), pyhost(), environment], finished.stdout.splitlines()[:3])

    def test_activated_but_isolated(self):
        variables = clean_environment(VIRTUAL_ENV=self.create("env", oracle.PYTHON))
        for option in ("-E", "-I"):
            with self.subTest(option=option):
                self.assert_same(option, "-c", PREFIXES, environment=variables)

    def test_activated_one_does_not_replace_the_own_one(self):
        own, other = self.create("own", pyhost()), self.create("other", pyhost())
        outcome = oracle.run(f"{own}/bin/pyhost", "-c", SHOW, environment=clean_environment(VIRTUAL_ENV=other))
        self.assertEqual(own, outcome.stdout.decode().splitlines()[2])

    def test_activated_reaches_children(self):
        variables = clean_environment(VIRTUAL_ENV=self.create("env", oracle.PYTHON))
        self.packages("env")
        code = "import sys, subprocess; subprocess.run([sys.executable, '-c', 'import inside'], check=True)"
        self.assertEqual(b"inside\n", self.run_pyhost("-c", code, environment=variables).stdout)

    def test_of_another_version_is_a_warning(self):
        self.write("env/pyvenv.cfg", "home = /usr/bin\nversion = 3.2.1\n")
        variables = clean_environment(VIRTUAL_ENV=str(self.folder / "env"))
        outcome = self.run_pyhost("-c", PREFIXES, environment=variables)
        self.assertEqual(0, outcome.code)
        self.assertIn(b"made with Python 3.2", outcome.stderr)
        self.assertEqual(1, outcome.stderr.count(b"\n"))
        self.assertEqual(self.run_python("-c", PREFIXES).stdout, outcome.stdout)
        self.write("pool.py", "import multiprocessing as m\nif __name__ == '__main__':\n    with m.Pool(1) as p: print(p.apply(abs, (-1,)))")
        outcome = self.run_pyhost("pool.py", environment=variables)
        self.assertEqual((b"1\n", 1), (outcome.stdout, outcome.stderr.count(b"\n")), outcome)  # said by the root host alone

    def test_that_is_gone_is_a_warning(self):
        variables = clean_environment(VIRTUAL_ENV=str(self.folder / "gone"))
        outcome = self.run_pyhost("-c", "print(1)", environment=variables)
        self.assertEqual((0, b"1\n"), (outcome.code, outcome.stdout))
        self.assertIn(b"VIRTUAL_ENV=%s/gone is ignored" % bytes(self.folder), outcome.stderr)

    def test_empty_variable_means_none(self):
        self.assert_same("-c", PREFIXES, environment=clean_environment(VIRTUAL_ENV=""))


if __name__ == "__main__":
    unittest.main()
