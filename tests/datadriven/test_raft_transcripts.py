"""Our own transcripts of whole clusters: scenarios worth reading, and kept as they are.

After a change of behaviour that was meant: ``pytest tests/datadriven --rewrite``, then read the
diff.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.datadriven.raft_adapter import Cluster
from tests.datadriven.transcript import Difference, essence, parse, rewrite, run

TRANSCRIPTS = sorted((Path(__file__).parent / "raft").glob("*.txt"))


@pytest.mark.parametrize("transcript", TRANSCRIPTS, ids=lambda path: path.stem)
def test_the_story_is_told_as_before(transcript: Path, pytestconfig: pytest.Config) -> None:
    """Every directive is answered as the transcript says."""
    if pytestconfig.getoption("--rewrite"):
        rewrite(transcript, Cluster().handle)
    assert run(transcript, Cluster().handle) > 0


def test_rewriting_is_stable(tmp_path: Path) -> None:
    """A transcript that is right is not changed by rewriting, comments and all."""
    for transcript in TRANSCRIPTS:
        copy = tmp_path / transcript.name
        copy.write_text(transcript.read_text())
        rewrite(copy, Cluster().handle)
        assert copy.read_text() == transcript.read_text()


def test_a_difference_says_where(tmp_path: Path) -> None:
    """File, line, directive, what was expected and what came."""
    path = tmp_path / "story.txt"
    path.write_text("# a comment\n\nhello world to=(1, 2) x=y\n----\nno\n")
    with pytest.raises(Difference) as caught:
        run(path, lambda directive: f"{directive.positional} {directive.named}")
    text = str(caught.value)
    assert "story.txt:3: hello" in text
    assert "expected 'no'" in text
    assert "['world'] {'to': ['1', '2'], 'x': ['y']}" in text


def test_output_with_empty_lines_stands_between_doubled_separators(tmp_path: Path) -> None:
    """It is written so, and read back so; input lines go to the directive."""
    path = tmp_path / "story.txt"
    path.write_text("say\nfirst\nlast\n----\n?\n")
    rewrite(path, lambda directive: directive.input.replace("\n", "\n\n"))
    assert path.read_text() == "say\nfirst\nlast\n----\n----\nfirst\n\nlast\n----\n----\n"
    (directive,) = parse(path.read_text())
    assert essence(directive.expected) == ["first", "last"]
