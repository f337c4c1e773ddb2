"""Tables at every width: columns are left out, and what is shown is shown whole."""

from __future__ import annotations

import io
import os
import termios
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text
from tests.builders import realistic_call, sqlite_store, store_calls, troubled_call

from voicelog_sink import render_letter
from voicelog_sink.anomalies import Anomaly, Found
from voicelog_sink.checkup import Finding
from voicelog_sink.cli import main
from voicelog_sink.commands import anomalies, doctor, restore, verify
from voicelog_sink.dlq import Counts, LetterRow
from voicelog_sink.render import GAP, LEAST_WIDTH, Column, console, print_line, print_table
from voicelog_sink.restored import Counts as RowCounts
from voicelog_sink.restored import Restored
from voicelog_sink.trends import Trend, Week
from voicelog_sink.verify import Gap, Ledger, Missing

ID = "0b5e7a11-5f0e-4c1b-9d55-0123456789ab"
WIDE = "10000"
WIDTHS = st.integers(1, 250)

ANOMALY = Anomaly(
    name="llm", kind="stage", figure="duration_ms", measure="p50", unit="ms", group={"model": "gpt-4o-mini-2024-07-18"},
    direction="slower", worse=True, value=13885.0, median=4676.0, spread=123.4, z=74.6, count=1234567, days=14,
    since_ms=1_795_341_600_000, is_older=True, until_ms=None,
)  # fmt: skip
FOUND = Found(ANOMALY.since_ms, 0, 12, 3, 4, [ANOMALY])
TREND = Trend(
    name="llm", kind="stage", figure="duration_ms", measure="p50", unit="ms", group={"model": "gpt-4o-mini-2024-07-18"},
    weeks=tuple(Week(week * 604_800_000, 1000.0 * week, 5000) for week in range(1, 13)), slope=1000.0, percent=15.4,
    chance=0.002, verdict="rising", worse=True,
)  # fmt: skip
LETTER = LetterRow(
    partition=2, offset=1234567, at=1_795_341_600_000, reason="unsupported_version", topic="voicelog.stt-results",
    topic_partition=3, topic_offset=7654321, session_id=ID, size_bytes=1048576, replays=12, error="WireError",
    message="schema version 99 is not supported: expected 1 to 12, in a message of 1048576 bytes at offset 7654321",
)  # fmt: skip
LEDGER = Ledger(
    missing=[Missing("voicelog.stt-results", 3, 7654321, ID, "01985f0e-4c1b-7d55-9b5e-7a1101234567")], sessions={ID}
)
LEDGER.counts["voicelog.stt-results"] = Counter(stored=1234567, dead=12345, expired=123456, erased=1234, missing=12)
RESTORED = Restored()
RESTORED.tables["session_summaries"] = RowCounts(1234567, 2345678, 3456789, 456789, 56789)
FINDING = Finding("dead letters", "warning", f"12,345 of call {ID}", "voicelog-sink dlq list --reason not_json")


def letters() -> None:
    counts = Counts()
    counts.reasons[LETTER.reason] = counts.topics[LETTER.topic] = 1234567
    out = console(table=True)
    render_letter.print_list(out, [LETTER])
    render_letter.print_counts(out, counts)


PRINTERS: dict[str, Callable[[], object]] = {
    "anomalies": lambda: anomalies.show(FOUND, anomalies.Looked("7d", (), 14), as_json=False),
    "trends": lambda: anomalies.show_trends([TREND], (), as_json=False),
    "dlq": letters,
    "verify": lambda: verify.tell(LEDGER, [Gap(ID, 1234, 1200, 34)]),
    "restore": lambda: restore.tell(Path(), RESTORED, dry_run=True, as_json=False),
    "doctor": lambda: list(doctor.told([FINDING], as_json=False)),
}
COMMANDS = [
    ("stats", "--by", "model"), ("stats", "--by", "provider,variant"), ("sessions",), ("retention",),
    ("compare", "a", "b"), ("compare", "a", "b", "--names", "llm"),
]  # fmt: skip


@pytest.fixture(scope="module")
def store_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    path, start_us = tmp_path_factory.mktemp("tables") / "calls.db", int(time.time() * 1e6) - 600_000_000
    store = sqlite_store(path, lambda: int(time.time() * 1000))
    store_calls(store, [
        realistic_call(ID, start_us=start_us, variant="a", user_id="okafor"),
        troubled_call(f"{ID}-and-more", start_us=start_us - 10**6, variant="b"),
    ])  # fmt: skip
    store.close()
    return f"sqlite:///{path}"


@pytest.fixture(autouse=True)
def _columns_stay() -> Iterator[None]:
    """Put COLUMNS back as it was."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", WIDE)
        patch.delenv("FORCE_COLOR", raising=False)
        yield


def at_width(columns: str, show: Callable[[], object]) -> str:
    os.environ["COLUMNS"] = columns
    with redirect_stdout(io.StringIO()) as out:
        show()
    return out.getvalue()


def words(text: str) -> set[str]:
    return {word for word in text.split() if word != "…"}


@given(width=WIDTHS, name=st.sampled_from(sorted(PRINTERS)))
def test_what_a_narrow_table_shows_is_in_the_wide_one_word_by_word(width: int, name: str) -> None:
    narrow = at_width(str(width), PRINTERS[name])
    assert words(narrow)
    assert words(narrow) <= words(at_width(WIDE, PRINTERS[name]))


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_command_on_a_store_shows_numbers_and_ids_whole_at_every_width(
    arguments: tuple[str, ...], store_url: str
) -> None:
    def show() -> None:
        assert main([*arguments, "--store", store_url]) == 0

    wide = words(at_width(WIDE, show))
    for width in (1, 41, 60, 73, 80, 100, 120):
        assert words(at_width(str(width), show)) <= wide


@pytest.mark.parametrize("width", [1, 40, 60, 80, 100])
def test_sessions_names_every_call_so_that_show_finds_it(width: int, store_url: str) -> None:
    out = at_width(str(width), lambda: main(["sessions", "--store", store_url]))
    assert {ID, f"{ID}-and-more"} <= words(out)


NUMBERS = st.integers(0, 10**9).map(str)
IDS = st.uuids().map(str)
SHAPES = st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["number", "id"])), min_size=1, max_size=12)


@given(data=st.data(), shape=SHAPES, width=WIDTHS)
def test_table_shows_some_columns_whole_by_rank_and_is_no_wider_unless_all_are_needed(
    data: st.DataObject, shape: list[tuple[int, str]], width: int
) -> None:
    columns = [Column(f"c{n}-{kind}", rank=rank, right=kind == "number") for n, (rank, kind) in enumerate(shape)]
    cells = [NUMBERS if kind == "number" else IDS for _, kind in shape]
    rows = data.draw(st.lists(st.tuples(*cells), max_size=4))
    out = Console(file=io.StringIO(), width=width, highlight=False)
    print_table(out, columns, rows)
    lines = out.file.getvalue().splitlines()  # type: ignore[attr-defined]
    headings = lines[0].split() if lines else []
    kept = [index for index, column in enumerate(columns) if column.heading in headings]
    assert [line.split() for line in lines[1:]] == ([[row[index] for index in kept] for row in rows] if kept else [])
    left_out = {column.rank for index, column in enumerate(columns) if index not in kept}
    assert all(columns[index].rank < min(left_out, default=99) for index in kept)
    if any(columns[index].rank for index in kept):
        assert max(map(len, lines)) <= width


def test_lines_are_longer_than_the_terminal_where_the_last_columns_have_no_room() -> None:
    out = Console(file=io.StringIO(), width=20, highlight=False)
    print_table(out, [Column("session"), Column("p50", right=True), Column("p99", right=True, rank=1)],
                [[ID, "1234567", "7654321"]])  # fmt: skip
    assert out.file.getvalue() == f"{'session':36}{'p50':>{GAP + 7}}\n{ID}  1234567\n"  # type: ignore[attr-defined]


@given(text=st.text(st.characters(categories=["L", "N", "P", "Zs"])), width=WIDTHS)
def test_text_that_has_no_room_ends_between_two_words(text: str, width: int) -> None:
    out = Console(file=io.StringIO(), width=width, highlight=False)
    print_table(out, [Column("n"), Column("message", shrink=True)], [["1", Text(text)]])
    line = out.file.getvalue().splitlines()[1]  # type: ignore[attr-defined]
    shown = line.removeprefix("1").strip()
    if shown != text.strip():
        assert shown.endswith("…")
        assert text.split()[: len(shown.removesuffix("…").split())] == shown.removesuffix("…").split()
        assert cell_len(line) <= max(width, LEAST_WIDTH)


def test_line_is_broken_between_words_and_an_id_never() -> None:
    out = Console(file=io.StringIO(), width=20, highlight=False)
    print_line(out, Text(f"missing: stt[3] 7654321 of call {ID}, event 1"))
    assert out.file.getvalue() == f"missing: stt[3] 7654321 of call\n{ID},\nevent 1\n"  # type: ignore[attr-defined]


def test_p95_is_never_shown_without_the_p50_that_it_belongs_to(store_url: str) -> None:
    for width in range(LEAST_WIDTH, 130, 9):
        out = at_width(str(width), lambda: main(["stats", "--store", store_url]))
        heading = next(line for line in out.splitlines() if line.startswith("stage "))
        assert heading.count("p95") <= heading.count("p50")


@pytest.mark.parametrize("columns", ["0", "", "wide", "-5", "000", "1e3"])
def test_columns_that_is_no_width_is_taken_for_none(columns: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert (console(io.StringIO(), table=True).width, console(io.StringIO()).width) == (10_000, 100)


@pytest.mark.parametrize(("has", "width"), [(0, 80), (5, LEAST_WIDTH), (93, 93)])
@pytest.mark.parametrize("term", ["xterm", "dumb"])
def test_terminal_is_as_wide_as_it_says(has: int, width: int, term: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "0")
    monkeypatch.setenv("TERM", term)
    ours, its = os.openpty()
    termios.tcsetwinsize(its, (50 if has else 0, has))
    with os.fdopen(ours), os.fdopen(its, "w") as stream:
        assert console(stream, table=True).width == width


@pytest.mark.parametrize("columns", ["1", "5", "0039"])
def test_least_width_is_laid_out_for_where_columns_says_less(columns: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert console(io.StringIO(), table=True).width == LEAST_WIDTH
