"""What programs use of the standard library's pool that this one does not need: its tasks, and where they are kept.

The best known is the recipe for an imap() with starmap()'s arguments:

    batches = Pool._get_tasks(function, iterable, chunksize)
    result = IMapIterator(pool)
    pool._taskqueue.put((pool._guarded_task_generation(result._job, starmapstar, batches), result._set_length))

A task is (job, number, function, args, kwds): a call whose outcome goes to the iterator that has this number as `_job`.
"""

import functools
import weakref

from . import util
from .pool_feeder import QUEUED_CALLS, chunks, start_feeding

__all__ = ['Outstanding', 'TaskQueue', 'batches_of', 'mapstar', 'starmapstar', 'tasks_of']


class TaskQueue:
    """Pool._taskqueue: its tasks are submitted to the pool's workers, on a thread for each put()."""

    def __init__(self, crew, options):
        self._crew = crew
        self._options = options
        self._iterators = weakref.WeakValueDictionary()  # _job -> the iterator that its outcomes go to

    def open_calls(self, iterator):
        """The calls for the tasks of this iterator."""
        calls = self._crew.client.open_calls(starmapstar, *self._options.for_calls)
        self._iterators[calls.key] = iterator
        return calls

    def put(self, tasks_and_end):
        """(iterable of tasks of one job, what to call with their number when all are submitted)."""
        start_feeding(self._crew, functools.partial(self._feed, *tasks_and_end))
        limit = self._options.for_calls[0]
        if limit:
            self._crew.expect(limit)

    def _feed(self, tasks, set_length):
        count = 0
        try:
            for job, _, function, args, kwds in tasks:
                function = functools.partial(function, **kwds) if kwds else function
                self._iterators[job]._submit_task(function, args)
                count += 1
                self._crew.client.wait_for_room(QUEUED_CALLS)
        except ValueError:
            util.debug('the pool ended while its tasks were read')
        finally:
            set_length(count)

    def qsize(self):
        """How many calls no worker has taken."""
        return self._crew.client.queued

    def empty(self):
        """Whether the workers have taken all calls."""
        return self.qsize() == 0


class Outstanding:
    """Pool._cache: its length is the number of calls without an outcome.  A map() has one for each chunk."""

    def __init__(self, client):
        self._client = client

    def __len__(self):
        return self._client.unanswered


def batches_of(function, iterable, size):
    """(function, items) for each `size` items."""
    for items in chunks(iter(iterable), size):
        yield function, items


def tasks_of(job, function, batches):
    """The tasks of function(batch) for each batch; what reading the batches raises is the last one's outcome."""
    number = 0
    try:
        for batch in batches:
            yield job, number, function, (batch,), {}
            number += 1
    except Exception as error:
        yield job, number, _fail, (error,), {}


# ---- In the worker ---------------------------------------------------------------------------------------------------


def mapstar(args):
    """The results of function(*items) for items in zip(*iterables); args: function, *iterables."""
    return list(map(*args))


def starmapstar(args):
    """The results of function(*item) for item in items; args: function, items."""
    function, items = args
    return [function(*item) for item in items]


def _fail(error):
    raise error


for _public in (mapstar, starmapstar):
    _public.__module__ = 'multiprocessing.pool'
del _public
