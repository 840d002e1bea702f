"""Statistics of measured pairs, without assumptions about how the figures are distributed."""

import dataclasses
import math
import statistics


@dataclasses.dataclass(frozen=True)
class Interval:
    """Where the true median lies with a probability of `confidence` (0 to 1)."""

    low: float
    high: float
    confidence: float


def median_interval(values, confidence=0.95):
    """The narrowest interval between two of the sorted values that holds the median with that confidence, from the
    binomial distribution (each value is above the median with probability 1/2).  Few values cannot give it: then the
    interval is from the least to the greatest, and its confidence says what that is worth."""
    values = sorted(values)
    n = len(values)
    best = Interval(values[0], values[-1], 1 - 2 * 0.5 ** n)
    tail = 0.5 ** n  # the probability that the median lies below values[rank]
    for rank in range(1, n // 2):
        tail += math.comb(n, rank) * 0.5 ** n
        if 1 - 2 * tail < confidence:
            break
        best = Interval(values[rank], values[n - 1 - rank], 1 - 2 * tail)
    return best


@dataclasses.dataclass(frozen=True)
class Summary:
    """One side of a workload."""

    median: float
    low: float
    high: float


def summarize(values):
    return Summary(statistics.median(values), min(values), max(values))


def compare(reference, ours):
    """(median ratio, Interval) of reference / ours, pair by pair: above 1 we are better.  None where a figure is zero,
    which has no ratio."""
    if not all(ours) or not all(reference):
        return None
    ratios = [theirs / mine for theirs, mine in zip(reference, ours)]
    return statistics.median(ratios), median_interval(ratios)
