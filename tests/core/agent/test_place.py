"""A reader of output that breaks off goes on where it was."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from swarmctl.core.agent.executor import LogLine, LogOptions
from swarmctl.core.agent.place import Place


def answer(output: list[LogLine], options: LogOptions) -> list[LogLine]:
    """What an executor gives of an output."""
    found = [line for line in output if line.at >= options.since]
    return found if options.tail < 0 else found[max(0, len(found) - options.tail) :]


@given(
    steps=st.lists(st.integers(0, 2), max_size=30),
    breaks=st.lists(st.integers(0, 8), max_size=12),
    tail=st.integers(-1, 4),
    since=st.integers(0, 10),
)
def test_no_line_is_lost_or_read_twice(
    steps: list[int], breaks: list[int], tail: int, since: int
) -> None:
    """Wherever reading breaks off, what was read in all is what one reading would have given; also
    where several lines have one time, as long as no tail begins among them."""
    at, output = 1, []
    for number, step in enumerate(steps):
        at += step + (tail >= 0)
        output.append(LogLine(at=at, stream=1 + number % 2, text=b"%d" % number))
    options = LogOptions(since=since, tail=tail)
    place = Place(options)
    found: list[LogLine] = []
    for count in breaks:
        found += place.fresh(answer(output, place.options())[:count])
    found += place.fresh(answer(output, place.options()))
    assert found == answer(output, options)


@given(before=st.integers(0, 5), between=st.integers(0, 5))
def test_who_has_read_nothing_yet_misses_nothing(before: int, between: int) -> None:
    """A tail of 0 that breaks off before the first line goes on from when it began."""
    old = [LogLine(at=10 + number, stream=1, text=b"old") for number in range(before)]
    new = [LogLine(at=30 + number, stream=1, text=b"new") for number in range(between)]
    place = Place(LogOptions(tail=0, follow=True))
    assert list(place.fresh(answer(old, place.options()))) == []
    place.began(20)
    assert list(place.fresh(answer(old + new, place.options()))) == new
