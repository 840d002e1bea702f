"""What runs in a worker process of concurrent.futures.ProcessPoolExecutor: the initializer, then the native loop.

Here and not beside the executor, so that a worker does not import concurrent.futures, which it does not need.
"""

from . import util

__all__ = ['process_chunk', 'worker']


def worker(server, initializer=None, initargs=(), max_tasks=None, log=None, max_memory=None):
    """Serves the calls of an executor until it is shut down, `max_tasks` calls are done, or `max_memory` bytes exceeded."""
    if log is not None:
        log.install()
    if initializer is not None and not _initialize(server, initializer, initargs):
        return
    if log is not None:
        log.note_serving()
    served = server.run(max_tasks or 0, contain=True, max_memory=max_memory or 0)
    util.debug('worker exiting after %d tasks', served)


def _initialize(server, initializer, initargs):
    try:
        initializer(*initargs)
    except BaseException as error:
        from concurrent.futures import _base

        from . import pool_outcomes
        _base.LOGGER.critical('Exception in initializer:', exc_info=True)
        server.report(pool_outcomes.pack_exception(error))  # with it, the caller knows why this worker ends
        return False
    return True


def process_chunk(function, chunk):
    """The results of function(*args) for each args of a chunk of an executor's map()."""
    return [function(*args) for args in chunk]
