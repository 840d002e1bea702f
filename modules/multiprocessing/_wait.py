"""Waiting for several connections, sockets or sentinels at once."""

import math
import select
import time

import _pyhost

__all__ = ['wait']

# poll(2) takes an int of milliseconds; longer waits are slept in several.
_LONGEST_POLL_MS = 0x7fffffff
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
    ready = _poll_with_lanes(poller, lanes, timeout) if lanes else _poll_descriptors(poller, timeout)
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
    """The descriptors that `poller` (a select.poll) finds ready within `timeout` seconds (None: no limit)."""
    if timeout is None or timeout == math.inf:
        return _poll(poller, None)
    if timeout <= 0:
        return _poll(poller, 0)
    deadline = time.monotonic() + timeout
    while True:
        ready = _poll(poller, min(math.ceil(timeout * 1000), _LONGEST_POLL_MS))
        if ready:
            return ready
        timeout = deadline - time.monotonic()
        if timeout <= 0:
            return ready


def _poll(poller, milliseconds):
    return {fd for fd, _ in poller.poll(milliseconds)}


def _poll_with_lanes(poller, lanes, timeout):
    """The same, with what was left behind in `lanes`: (descriptor, HandOver) pairs.

    No descriptor tells of that.  A reader that dies in its call is rare, and so it is looked for after 50 ms, then less often.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    patience, left = _FIRST_LOOK, timeout
    while True:
        ready = {fd for fd, lane in lanes if lane.is_left_behind()}
        ready |= _poll_descriptors(poller, 0 if ready else patience if left is None else min(left, patience))
        if ready:
            return ready
        if deadline is not None:
            left = deadline - time.monotonic()
            if left <= 0:
                return ready
        patience = min(2 * patience, _LONGEST_LOOK)
