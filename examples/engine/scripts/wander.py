"""Wanderers, in a version that should not have been shipped: it crashes, hangs, and then fails with every frame."""

import ctypes
import math
import pathlib

CRASHES_FROM, HANGS_FROM, FAILS_FROM = 20, 40, 60


def decide(agents, steering, frame):
    if frame >= CRASHES_FROM and first_time('crash'):
        ctypes.string_at(0)  # A segmentation fault.
    if frame >= HANGS_FROM and first_time('hang'):
        while True:
            pass
    size = 0 if frame >= FAILS_FROM else len(agents)
    wishes = []
    for number, (x, y, vx, vy, near_x, near_y, mean_vx, mean_vy) in enumerate(agents.tolist()):
        heading = math.tau * number / size + 0.01 * frame
        wishes.append((0.1 * math.cos(heading) - 0.1 * vx, 0.1 * math.sin(heading) - 0.1 * vy))
    steering[:] = wishes


def first_time(what):
    """True once for all workers, whatever becomes of the one that asks: a file beside the script remembers."""
    try:
        pathlib.Path(__file__).with_name(what).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True
