"""Windows' way of starting children.  The file exists because programs and tests ask for its name."""

__all__ = ['Popen']

raise ImportError('multiprocessing.popen_spawn_win32 starts children on Windows; '
                  'pyhost runs on Linux, where popen_spawn_posix does that')
