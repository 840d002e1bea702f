"""Who runs the workloads: python3, pyhost, and other libraries where they are installed."""

import dataclasses
import json
import os
import subprocess
import sys

LIBRARIES = {'joblib': 'joblib', 'loky': 'loky', 'faster_fifo': 'faster-fifo', 'distributed': "Dask's distributed"}
PROBE = '''
import importlib.util, json, sys
from importlib import metadata
def version(name):
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return getattr(__import__(name), '__version__', 'of unknown version')
found = {name: version(name) for name in sys.argv[1:] if importlib.util.find_spec(name)}
print(json.dumps([sys.version.split()[0], found]))
'''


@dataclasses.dataclass(frozen=True)
class Side:
    """A program, and which library's workloads it runs ('' is multiprocessing)."""

    label: str
    program: str
    version: str
    modules: dict  # what is installed there: {module: version}
    library: str = ''


class NoSuchProgram(Exception):
    """A program that cannot be used; the text says which and why."""


def probe(program):
    """(Python version, {module: version} of the modules that workloads may need)."""
    try:
        answer = subprocess.run([program, '-c', PROBE, 'numpy', *LIBRARIES], capture_output=True, text=True, timeout=60)
    except OSError as error:
        raise NoSuchProgram(f'{program}: {error.strerror}; choose another with --python') from None
    if answer.returncode:
        raise NoSuchProgram(f'{program} does not run: {answer.stderr.strip().splitlines()[-1:]}')
    try:
        return json.loads(answer.stdout)
    except ValueError:
        raise NoSuchProgram(f'{program} is no Python: it answered {answer.stdout[:60]!r} to a question in Python; '
                            'choose another with --python') from None


def default_python():
    """The interpreter that pyhost was built from."""
    return os.path.join(sys.base_exec_prefix, 'bin', 'python%d.%d' % sys.version_info[:2])


def find_sides(python):
    """[python3, pyhost, the other libraries], and the names of libraries that are missing."""
    version, modules = probe(python)
    ours, our_modules = probe(sys.executable)
    if version != ours:
        raise NoSuchProgram(f'{python} is Python {version}, pyhost runs Python {ours}: they cannot be compared; '
                            'choose the same with --python')
    sides = [Side('python3', python, version, modules), Side('pyhost', sys.executable, ours, our_modules)]
    missing = []
    for module, name in LIBRARIES.items():
        if module in modules:
            sides.append(Side(f'{name} {modules[module]}', python, version, modules, module))
        else:
            missing.append(name)
    return sides, missing
