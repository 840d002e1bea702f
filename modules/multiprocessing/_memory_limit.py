"""How much memory can still be had: what /dev/shm, the machine and the control groups leave.

The kernel lets a process allocate more than there is, and then kills some process.  This is for asking before.
"""

import os

__all__ = ()

_CGROUPS = '/sys/fs/cgroup'


def available(fd):
    """(bytes, what sets the limit) for the file system of the descriptor `fd`, which lies in memory."""
    return min(_limits(fd))


def _limits(fd):
    status = os.fstatvfs(fd)
    yield (status.f_bavail * status.f_frsize,
           f'/dev/shm, of {status.f_blocks * status.f_frsize} bytes, has no more free '
           '(`mount -o remount,size=... /dev/shm` changes its size)')
    free = _machine_memory()
    if free is not None:
        yield free, 'the machine has no more memory available'
    yield from _cgroup_limits()


def _machine_memory():
    try:
        fields = dict(line.split(b':') for line in _read('/proc/meminfo').splitlines())
    except OSError:
        return None
    return sum(int(fields.get(name, b'0 kB').split()[0]) << 10 for name in (b'MemAvailable', b'SwapFree'))


def _cgroup_limits():
    """What each control group above this process leaves (version 2)."""
    try:
        lines = os.fsdecode(_read('/proc/self/cgroup')).splitlines()
        path = next(line[3:] for line in lines if line.startswith('0::'))
    except (OSError, StopIteration):
        return
    while True:
        folder = _CGROUPS + path.rstrip('/')
        limit, used = _read_number(folder + '/memory.max'), _read_number(folder + '/memory.current')
        if limit is not None and used is not None:
            yield max(limit - used, 0), f'the control group limits memory to {limit} bytes ({folder}/memory.max)'
        if path in ('', '/'):
            return
        path = os.path.dirname(path)


def _read_number(path):
    """The number in a file; None if there is no file, or no limit in it."""
    try:
        return int(_read(path))
    except (OSError, ValueError):
        return None


def _read(path):
    """The bytes of a small file of the kernel's, at a fifth of the cost of open()."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return b''.join(iter(lambda: os.read(fd, 1 << 14), b''))
    finally:
        os.close(fd)
