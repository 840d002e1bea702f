"""What runs in a pool's worker process: the initializer, then the native loop."""

from . import util

__all__ = ['worker']


def worker(server, initializer=None, initargs=(), maxtasks=None):
    """Serves the calls of a pool until it is closed, or `maxtasks` calls are done."""
    if initializer is not None:
        _initialize(server, initializer, initargs)
    served = server.run(maxtasks or 0)
    util.debug('worker exiting after %d tasks', served)


def _initialize(server, initializer, initargs):
    try:
        initializer(*initargs)
    except Exception as error:
        # Told to the caller as well, who gives up when no worker can begin.
        from . import pool_outcomes
        server.report(pool_outcomes.pack_exception(error))
        raise
