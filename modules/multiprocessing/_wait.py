"""Waiting for several connections, sockets or sentinels at once."""

import math
import select
import time

__all__ = ['wait']

# poll(2) takes an int of milliseconds; longer waits are slept in several.
_LONGEST_POLL_MS = 0x7fffffff


def wait(object_list, timeout=None):
    """The objects in `object_list` that are ready to be read, as soon as there is one or `timeout` ends.

    An object is a Connection, a socket, a `Process.sentinel`, or whatever is, or has a `fileno()` that gives, a
    descriptor.  The end of the other side counts as ready.
    """
    by_descriptor = {}
    poller = select.poll()
    left_behind = set()
    for obj in object_list:
        fd = _descriptor(obj)
        if fd not in by_descriptor:
            poller.register(fd, select.POLLIN)
        by_descriptor.setdefault(fd, []).append(obj)
        hand_over = getattr(obj, '_hand_over', None)
        if hand_over is not None and hand_over.is_left_behind():
            left_behind.add(fd)
    ready = left_behind.union(fd for fd, _ in _poll_descriptors(poller, 0 if left_behind else timeout))
    return [obj for fd in by_descriptor if fd in ready for obj in by_descriptor[fd]]


def _descriptor(obj):
    try:
        fd = obj if isinstance(obj, int) else int(obj.fileno())
    except (AttributeError, TypeError, ValueError):
        raise ValueError(f'wait() cannot wait for {obj!r}: not a descriptor, and no usable fileno()') from None
    if fd < 0:
        raise ValueError(f'wait() cannot wait for {obj!r}: invalid descriptor {fd}')
    return fd


def _poll_descriptors(poller, timeout):
    """What `poller` (a select.poll) finds ready within `timeout` seconds (None: no limit)."""
    if timeout is None:
        return poller.poll()
    if timeout <= 0:
        return poller.poll(0)
    if timeout == math.inf:
        return poller.poll()
    deadline = time.monotonic() + timeout
    while True:
        ready = poller.poll(min(math.ceil(timeout * 1000), _LONGEST_POLL_MS))
        if ready:
            return ready
        timeout = deadline - time.monotonic()
        if timeout <= 0:
            return ready
