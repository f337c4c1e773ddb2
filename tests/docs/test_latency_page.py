"""The examples of docs/explanation/latency.md are what the code measures."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from voicelog.events import Contribution
from voicelog.latency import Latency, measure
from voicelog.marks import Interval

PAGE = Path(__file__).parent.parent.parent / "docs/explanation/latency.md"
WORDS = "mark|stage|parts|figure"
LINE = re.compile(rf"^    ({WORDS}) +(.*)$")
STAGE = re.compile(r"(\w+) (-?\d+) to (\d+)(?:, first (\d+))?(?:, (\w+))?")
MARK = re.compile(r"(\w+) (\d+)(, foreign)?")
Example = list[tuple[str, str]]


def examples() -> list[Example]:
    """Return the page's examples: runs of lines that begin with one of WORDS."""
    found: list[Example] = [[]]
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        match = LINE.match(line)
        if match:
            found[-1].append((match[1], match[2]))
        elif found[-1]:
            found.append([])
    return [example for example in found if len(example) > 1]


def measured(example: Example) -> Latency:
    marks = [MARK.fullmatch(text) for word, text in example if word == "mark"]
    stages = [STAGE.fullmatch(text) for word, text in example if word == "stage"]
    assert None not in marks
    assert None not in stages
    return measure(
        {m[1]: int(m[2]) * 1000 for m in marks if m},
        [
            Interval(s[1], int(s[2]) * 1000, int(s[3]) * 1000, int(s[4]) * 1000 if s[4] else None, s[5] or "ok")
            for s in stages
            if s
        ],
        "vad",
        foreign={m[1] for m in marks if m and m[3]},
    )


def written(parts: list[Contribution] | None) -> str:
    return " + ".join(f"{part.key} {part.us / 1000:g}" for part in parts or ())


@pytest.mark.parametrize("example", examples(), ids=range(len(examples())))
def test_an_example_is_what_the_code_measures(example: Example) -> None:
    latency = measured(example)
    assert [written(latency.contributions)] == [text for word, text in example if word == "parts"]
    for text in (text for word, text in example if word == "figure"):
        name = text.split()[0]
        assert f"{name} {latency.figures[name].value_ms:g} {latency.figures[name].quality}" == text


def test_the_page_has_its_examples() -> None:
    assert len(examples()) == 7
