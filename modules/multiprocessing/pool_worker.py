"""What runs in a pool's worker process: the initializer, then the native loop."""

from . import util

__all__ = ['worker']


def worker(server, initializer=None, initargs=(), maxtasks=None, log=None, max_memory=None):
    """Serves the calls of a pool until it is closed, `maxtasks` calls are done, or `max_memory` bytes are exceeded."""
    if log is not None:
        log.install()
    if initializer is not None:
        _initialize(server, initializer, initargs)
    if log is not None:
        log.note_serving()
    served = server.run(maxtasks or 0, max_memory=max_memory or 0)
    util.debug('worker exiting after %d tasks', served)


def _initialize(server, initializer, initargs):
    try:
        initializer(*initargs)
    except Exception as error:
        # Told to the caller, who gives up when no worker can begin; printed by the first of the pool's workers only.
        from . import pool_outcomes
        if server.report(pool_outcomes.pack_exception(error)):
            raise
        raise SystemExit(1) from None
