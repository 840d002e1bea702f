"""Waiting for several connections, sockets or sentinels at once."""

import math
import select
import time

import _pyhost

__all__ = ['wait']

# Seconds: poll(2) takes an int of milliseconds; longer waits are slept in several.
_LONGEST_POLL = 0x7fffffff // 1000
# Seconds between two looks for a message that was left behind in shared memory.
_FIRST_LOOK, _LONGEST_LOOK = 0.05, 4.0


def wait(object_list, timeout=None):
    """The objects in `object_list` that are ready to be read, as soon as there is one or `timeout` ends.

    An object is a Connection, a socket, a `Process.sentinel`, or whatever is, or has a `fileno()` that gives, a
    descriptor.  The end of the other side counts as ready.
    """
    by_descriptor = {}
    poller = select.poll()
    lanes = []
    for obj in object_list:
        fd = _descriptor(obj)
        if fd not in by_descriptor:
            poller.register(fd, select.POLLIN)
        by_descriptor.setdefault(fd, []).append(obj)
        lane = getattr(obj, '_hand_over', None)
        if isinstance(lane, _pyhost.HandOver):
            lanes.append((fd, lane))
    ready = _poll(poller, lanes, timeout)
    return [obj for fd in by_descriptor if fd in ready for obj in by_descriptor[fd]]


def _descriptor(obj):
    try:
        fd = obj if isinstance(obj, int) else int(obj.fileno())
    except (AttributeError, TypeError, ValueError):
        raise ValueError(f'wait() cannot wait for {obj!r}: not a descriptor, and no usable fileno()') from None
    if fd < 0:
        raise ValueError(f'wait() cannot wait for {obj!r}: invalid descriptor {fd}')
    return fd


def _poll(poller, lanes, timeout):
    """The descriptors that are ready within `timeout` seconds (None: no limit).

    They are those that `poller` (a select.poll) finds, and those of `lanes`, (descriptor, HandOver) pairs, in which something
    was left behind: no descriptor tells of that.  A reader that dies in its call is rare, and so it is looked for after 50 ms,
    then less often.
    """
    deadline = math.inf if timeout is None else time.monotonic() + timeout
    patience = _FIRST_LOOK if lanes else _LONGEST_POLL
    while True:
        left = max(deadline - time.monotonic(), 0)
        ready = {fd for fd, lane in lanes if lane.is_left_behind()}
        ready.update(fd for fd, _ in poller.poll(0 if ready else math.ceil(min(left, patience) * 1000)))
        if ready or left == 0:
            return ready
        if lanes:
            patience = min(2 * patience, _LONGEST_LOOK)
