"""For programs that measure: figures of several sides taken in turns, so that a slow minute of the machine hits all of them."""

import statistics
import sys

from .load import Stream, load


def medians(sides, rounds):
    """{name: median} of {name: function of no argument that returns a figure}."""
    seen = {name: [] for name in sides}
    for round_ in range(rounds):
        for name in sorted(sides, reverse=bool(round_ % 2)):
            seen[name].append(sides[name]())
    return {name: statistics.median(of) for name, of in seen.items()}


def seen_of(target, uri, key, status, connections, seconds, headers=()):
    """What came of asking `target` for that long; another status ends the program."""
    seen = load(target, Stream("all", uri, key, connections=connections, headers=headers), seconds=seconds)["all"]
    if seen.failed or list(seen.status) != [status]:
        sys.exit(f"{uri}: {seen}")
    return seen


def rate_of(*what, **more):
    """The function that returns requests a second; arguments are seen_of()'s."""
    return lambda: seen_of(*what, **more).rate


def time_of(*what, **more):
    """The function that returns the median time of an answer, in milliseconds."""
    return lambda: seen_of(*what, **more).p50
