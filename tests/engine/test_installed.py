"""An installed libpyhost: projects outside of this tree build against it, by pkg-config and by CMake, and run.

The project is examples/engine, copied away; the installation is a temporary one, which nothing of the system knows.
"""

import os
import pathlib
import shutil
import subprocess
import tempfile
import unittest

BUILD = os.environ['PYHOST_BUILD']
EXAMPLES = pathlib.Path(__file__).resolve().parents[2] / 'examples' / 'engine'
COMPILER = os.environ.get('CXX', 'c++')
HAS_EMBEDDED = (pathlib.Path(BUILD) / 'host' / 'embedded' / 'libpyhost_python.a').exists()


def run(*command, **options):
    """stdout; a failure shows all that the command said."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=240, **options)
    if done.returncode != 0:
        raise AssertionError(f'{command[0]} ended with {done.returncode}\n{done.stdout[-5000:]}\n{done.stderr[-5000:]}')
    return done.stdout


class Installed(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = pathlib.Path(folder.name)
        run('meson', 'install', '--no-rebuild', '-C', BUILD, '--destdir', cls.folder / 'dest')
        [program] = (cls.folder / 'dest').glob('**/bin/pyhost')
        # Moved, so that nothing can depend on where the build believes it was installed.
        cls.prefix = cls.folder / 'prefix'
        program.parents[1].rename(cls.prefix)
        [cls.pkgconfig] = cls.prefix.glob('**/pkgconfig')
        cls.project = cls.folder / 'project'
        shutil.copytree(EXAMPLES, cls.project)

    def assertWorks(self, program):
        # Started from elsewhere: the library tells the program by the variable, as the prefix was moved.
        environment = {**os.environ, 'PYHOST_PROGRAM': str(self.prefix / 'bin' / 'pyhost')}
        output = run(program, self.project / 'scripts', cwd='/', env=environment)
        self.assertIn('npc 7: leave the forest, urgency 0.3', output)
        self.assertIn('height at (1, 2): 12.5', output)
        self.assertIn('SIGSEGV', output)
        self.assertIn('and the next call works: 42', output)
        libraries = run('ldd', program)
        self.assertNotIn('libpython', libraries)

    def test_builds_with_pkg_config(self):
        environment = {**os.environ, 'PKG_CONFIG_PATH': str(self.pkgconfig)}
        flags = run('pkg-config', '--cflags', '--libs', 'pyhost', env=environment).split()
        program = self.folder / 'by_pkg_config'
        run(COMPILER, '-std=c++20', '-Wall', '-Wextra', '-Werror', self.project / 'minimal.cc', '-o', program, *flags)
        self.assertWorks(program)

    def test_builds_with_cmake(self):
        build = self.folder / 'by_cmake'
        run('cmake', '-S', self.project, '-B', build, f'-DCMAKE_PREFIX_PATH={self.prefix}')
        run('cmake', '--build', build, '--target', 'engine_minimal')
        self.assertWorks(build / 'engine_minimal')

    def assertEmbeds(self, program):
        environment = {**os.environ, 'PYHOST_PROGRAM': str(self.prefix / 'bin' / 'pyhost')}
        output = run(program, self.project / 'scripts', cwd='/', env=environment)
        self.assertEqual(output, 'in this process: 42\nin two others: [1, 2, 3]\n')
        self.assertIn('libpython', run('ldd', program))

    @unittest.skipUnless(HAS_EMBEDDED, 'no shared libpython to embed')
    def test_interpreter_of_the_engines_own_builds_with_pkg_config(self):
        environment = {**os.environ, 'PKG_CONFIG_PATH': str(self.pkgconfig)}
        flags = run('pkg-config', '--cflags', '--libs', 'pyhost_python', env=environment).split()
        program = self.folder / 'embedded_by_pkg_config'
        run(COMPILER, '-std=c++20', '-Wall', '-Wextra', '-Werror', self.project / 'embedded.cc', '-o', program, *flags)
        self.assertEmbeds(program)

    @unittest.skipUnless(HAS_EMBEDDED, 'no shared libpython to embed')
    def test_interpreter_of_the_engines_own_builds_with_cmake(self):
        build = self.folder / 'embedded_by_cmake'
        run('cmake', '-S', self.project, '-B', build, f'-DCMAKE_PREFIX_PATH={self.prefix}')
        run('cmake', '--build', build, '--target', 'engine_embedded')
        self.assertEmbeds(build / 'engine_embedded')

    def test_cmake_names_a_component_that_is_not_there(self):
        project = self.folder / 'component'
        project.mkdir()
        (project / 'CMakeLists.txt').write_text(
            'cmake_minimum_required(VERSION 3.16)\nproject(component CXX)\nfind_package(pyhost REQUIRED COMPONENTS lua)\n')
        with self.assertRaisesRegex(AssertionError, r'without the component\s+lua'):
            run('cmake', '-S', project, '-B', project / 'build', f'-DCMAKE_PREFIX_PATH={self.prefix}')

    def test_cmake_refuses_another_series(self):
        project = self.folder / 'newer'
        project.mkdir()
        (project / 'CMakeLists.txt').write_text(
            'cmake_minimum_required(VERSION 3.16)\nproject(newer CXX)\nfind_package(pyhost 99.0 REQUIRED)\n')
        with self.assertRaisesRegex(AssertionError, r'compatible\s+with requested version "99.0"'):
            run('cmake', '-S', project, '-B', project / 'build', f'-DCMAKE_PREFIX_PATH={self.prefix}')

    def test_every_header_stands_alone(self):
        headers = sorted((self.prefix / 'include' / 'pyhost').glob('*.h'))
        self.assertIn('worker_pool.h', [header.name for header in headers])
        environment = {**os.environ, 'PKG_CONFIG_PATH': str(self.pkgconfig)}
        flags = run('pkg-config', '--cflags', 'pyhost', env=environment).split()
        for header in headers:
            run(COMPILER, '-std=c++20', '-fsyntax-only', '-Wall', '-Wextra', '-Werror', *flags, '-x', 'c++', '-include', header,
                '/dev/null')

    def test_the_library_holds_no_python(self):
        [library] = self.prefix.glob('**/libpyhost.a')
        undefined = [line for line in run('nm', '-C', '--undefined-only', library).splitlines() if ' U Py' in line]
        self.assertEqual(undefined, [])


if __name__ == '__main__':
    unittest.main()
