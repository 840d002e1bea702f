"""What engine_minimal calls."""

import ctypes


def plan(npc, place, dangers):
    """Read by the engine as a struct Plan."""
    return {'goal': f'leave the {place}' if max(dangers) > 2 else 'rest', 'urgency': sum(dangers) / 10}


def raise_hill(heights, row, column):
    """`heights` is the engine's memory: a numpy array, or a memoryview where numpy is missing."""
    heights[row, column] += 12.5


def crash():
    ctypes.string_at(0)  # A true segmentation fault.


def answer():
    return 42
