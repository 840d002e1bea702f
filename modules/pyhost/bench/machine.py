"""What the figures were measured on."""

import os
import platform


def first_line(path, prefix):
    try:
        with open(path) as file:
            return next(line.split(':', 1)[1].strip() for line in file if line.startswith(prefix))
    except (OSError, StopIteration):
        return 'unknown'


def describe():
    """{what: text}, as it stands in reports."""
    return {
        'processor': first_line('/proc/cpuinfo', 'model name'),
        'processors usable': str(len(os.sched_getaffinity(0))),
        'memory': first_line('/proc/meminfo', 'MemTotal'),
        'system': f'{platform.system()} {platform.release()}, {platform.machine()}',
        'Python': platform.python_version(),
        'load before': '%.2f %.2f %.2f' % os.getloadavg(),
    }
