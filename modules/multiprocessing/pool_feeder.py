"""Submits calls bit by bit, on a thread: those of an imap(), and tasks of a program's own (pool_tasks.py)."""

import itertools
import sys
import threading

from . import util

__all__ = ['QUEUED_CALLS', 'Feeder', 'chunks', 'is_sliceable', 'start_feeding']

# At most this many calls are kept waiting for a worker.
QUEUED_CALLS = 10_000
_FEED_AT_ONCE = 64  # calls; of sequences only

# Slices of these give what iterating over them gives, so they can be sent instead of their items.
_SLICEABLE = (list, tuple, range, str, bytes, bytearray)


def start_feeding(crew, feed):
    """Runs feed() on a thread of its own; a pool that is closed meanwhile still takes the calls that it submits."""
    crew.begin_feeding()
    thread = threading.Thread(target=_run, args=(crew, feed), name='PoolFeeder', daemon=True)
    thread._pyhost_internal = True
    try:
        thread.start()
    except BaseException:
        crew.end_feeding()
        raise


def _run(crew, feed):
    try:
        feed()
    finally:
        crew.end_feeding()


class Feeder:
    """Submits the calls of an imap() over something long or lazy; run() is for start_feeding()."""

    def __init__(self, client, calls, func, iterable, chunksize):
        self._client = client
        self._calls = calls
        self._func = func
        self._iterable = iterable
        self._chunksize = chunksize

    def run(self):
        """Submits until the iterable is exhausted, raises, or the pool takes no more calls."""
        try:
            self._feed()
        except Exception as error:
            self._refuse(error)
        finally:
            self._calls.end()

    def _refuse(self, error):
        try:
            self._calls.refuse(error)
        except ValueError:
            util.debug('imap: the pool ended while its arguments were read')

    def _feed(self):
        if is_sliceable(self._iterable):
            self._feed_slices(self._iterable)
        else:
            self._feed_chunks(iter(self._iterable))

    def _feed_slices(self, items):
        """A sequence has its items at hand, so many chunks are submitted together, which is cheaper."""
        at_once = self._chunksize * max(1, _FEED_AT_ONCE // self._chunksize)
        for start in range(0, len(items), at_once):
            self._submit(items[start:start + at_once])

    def _feed_chunks(self, items):
        """Nothing read waits for the next item but that of its own chunk: the iterator may be slow, or wait for a result."""
        for chunk in chunks(items, self._chunksize):
            self._submit(chunk)

    def _submit(self, items):
        self._calls.extend(self._func, False, items, self._chunksize)
        self._client.wait_for_room(QUEUED_CALLS)


def chunks(items, size):
    """An iterator over tuples of `size` items; an error of the iterator's takes the chunk it comes in along."""
    if size == 1:
        return zip(items)  # the fastest of its kind
    return iter(lambda: tuple(itertools.islice(items, size)), ())


def is_sliceable(iterable):
    """Whether the slices of it can be sent."""
    kind = type(iterable)
    if kind in _SLICEABLE:
        return True
    numpy = sys.modules.get('numpy')
    return numpy is not None and kind is numpy.ndarray and iterable.ndim > 0
