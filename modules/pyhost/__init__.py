"""What pyhost offers beyond the names of the standard library.

collect_logging()      log records of all child processes go to this process's handlers
set_output_prefix()    lines that child processes print begin with the process's name
"""

__all__ = ['collect_logging', 'set_output_prefix']


def collect_logging(level=None):
    """Sends the `logging` records of all processes started from now on to the handlers of this process.

        import logging, pyhost
        logging.basicConfig(filename='job.log', level=logging.INFO)
        pyhost.collect_logging()

    It holds for every start method, for workers of pools and executors, and for children of children.  A child's loggers have
    the levels that this process's had when it was started; what they let pass is handled here by the loggers of the
    same names, with the child's `processName` and `process`.  A record is in shared memory when the logging call returns: it
    is not lost when the child ends, or is killed, and the end of this process waits until all are handled.

    `level`, if given, is set at the root logger.  Returns an object with `stop()`, which is also a context manager; a
    second call returns the same.  In a child whose records are collected already nothing changes.
    """
    import logging
    from multiprocessing import _log_channel
    if level is not None:
        logging.getLogger().setLevel(level)
    return _log_channel.collect()


def set_output_prefix(prefix='[{name}] '):
    """Puts `prefix` in front of each line that child processes started from now on write to sys.stdout and sys.stderr.

    It may have {name} and {pid}; None means no prefix.  Without a call, the option `-X pyhost_output_prefix[=FORMAT]`
    or else the environment variable PYHOST_OUTPUT_PREFIX says it.  With or without a prefix, each line of a child arrives whole.
    """
    from multiprocessing import _output, process
    process.current_process()._config[_output.CONFIG_NAME] = _output.check_prefix(prefix)
