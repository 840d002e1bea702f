"""What a pool, or one call of it, may be told besides the standard library's arguments: checked, in one object."""

__all__ = ['ExecutorOptions', 'PoolOptions', 'QueueOptions', 'ThreadOptions', 'check_timeout']

_MOST_MILLISECONDS = 2**32 - 1


class PoolOptions:
    """The options of one pool; see Pool."""

    def __init__(self, processes, timeout, on_worker_death, max_retries, max_memory, max_restarts):
        self.timeout = check_timeout(timeout)
        self.max_memory = _check_memory(max_memory)
        self.max_restarts = _check_restarts(max_restarts or (max(20, 5 * processes), 10.0))
        self._max_retries = _check_retries(max_retries)
        self.attempts = self._attempts_for(on_worker_death)
        self.for_calls = self._pair(self.timeout, self.attempts)

    def of_call(self, timeout, on_worker_death):
        """(milliseconds or 0, attempts) of calls for which these were given; None: as the pool."""
        if timeout is None and on_worker_death is None:
            return self.for_calls
        attempts = self.attempts if on_worker_death is None else self._attempts_for(on_worker_death)
        if attempts > self.attempts:
            self.attempts = attempts  # the crew asks whether there are calls that may run again
        return self._pair(self.timeout if timeout is None else check_timeout(timeout), attempts)

    def _attempts_for(self, on_worker_death):
        if on_worker_death == 'fail':
            return 1
        if on_worker_death == 'retry':
            return 1 + self._max_retries
        raise ValueError(f"on_worker_death must be 'fail' or 'retry', not {on_worker_death!r}")

    @staticmethod
    def _pair(timeout, attempts):
        milliseconds = 0 if timeout is None else min(max(1, round(timeout * 1000)), _MOST_MILLISECONDS)
        return milliseconds, attempts


class ExecutorOptions(PoolOptions):
    """Those of an executor: without on_worker_death it does not go on when a worker ends."""

    def __init__(self, processes, timeout, on_worker_death, *others):
        self.goes_on = on_worker_death is not None
        super().__init__(processes, timeout, on_worker_death or 'fail', *others)


class QueueOptions:
    """Those of a pool whose subclass brings its own queues: `options` with nothing set."""

    _REFUSED = ('a Pool subclass with queues of its own (_setup_queues) has no timeout, on_worker_death and '
                'max_memory_per_worker')

    def __init__(self, options):
        if options.timeout is not None or options.attempts > 1 or options.max_memory is not None:
            raise ValueError(self._REFUSED)
        self.max_restarts = options.max_restarts
        self.for_calls = 0, 1

    def of_call(self, timeout, on_worker_death):
        """(0, 1), or ValueError for what cannot be had."""
        if timeout is not None or on_worker_death not in (None, 'fail'):
            raise ValueError(self._REFUSED)
        return 0, 1


class ThreadOptions:
    """Those of a ThreadPool, which has none."""

    for_calls = 0, 1

    def of_call(self, timeout, on_worker_death):
        """(0, 1), or ValueError for what cannot be had."""
        if timeout is not None:
            raise ValueError('a ThreadPool cannot end a call that takes too long; use a Pool')
        if on_worker_death is not None:
            raise ValueError('a ThreadPool has no workers that could die; use a Pool')
        return 0, 1


def _is_number(value):
    if isinstance(value, (int, float)):
        return True
    import numbers  # slow to import
    return isinstance(value, numbers.Real)


def check_timeout(timeout):
    """The number of seconds, or None for no limit."""
    if timeout is None:
        return None
    if not _is_number(timeout):
        raise TypeError(f'timeout must be a number of seconds or None, not {type(timeout).__name__}')
    if not timeout > 0:
        raise ValueError(f'timeout must be positive, not {timeout!r}')
    return None if timeout == float('inf') else timeout


def _check_memory(max_memory):
    if max_memory is None:
        return None
    if not isinstance(max_memory, int):
        raise TypeError(f'max_memory_per_worker must be a number of bytes or None, not {type(max_memory).__name__}')
    if max_memory <= 0:
        raise ValueError(f'max_memory_per_worker must be positive, not {max_memory}')
    return max_memory


def _check_retries(max_retries):
    if not isinstance(max_retries, int):
        raise TypeError(f'max_retries must be an int, not {type(max_retries).__name__}')
    if max_retries < 0:
        raise ValueError(f'max_retries must not be negative, not {max_retries}')
    return max_retries


def _check_restarts(max_restarts):
    try:
        deaths, seconds = max_restarts
    except (TypeError, ValueError):
        raise TypeError(f'max_restarts must be (deaths, seconds), not {max_restarts!r}') from None
    if not isinstance(deaths, int) or not _is_number(seconds):
        raise TypeError(f'max_restarts must be (int, number), not {max_restarts!r}')
    if deaths < 1 or not seconds > 0:
        raise ValueError(f'max_restarts must be positive numbers, not {max_restarts!r}')
    return deaths, seconds
