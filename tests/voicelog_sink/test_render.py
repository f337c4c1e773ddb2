"""Text for people: safe, and with its units."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.text import Text

from voicelog_sink.render import Column, console, count, glyphs, moment, ms, one_line, print_table, safe, span, usd


@given(st.text())
def test_text_of_a_call_never_commands_the_terminal(text: str) -> None:
    assert not set(safe(text)) & {chr(n) for n in (*range(10), *range(11, 32), *range(127, 160), 0x202E, 0x2066)}
    assert "\n" not in one_line(text)


def test_what_is_harmless_stays_as_it_is() -> None:
    harmless = "Grüße, 你好 👋🏽\nשלום"  # noqa: RUF001
    assert safe(harmless) == harmless
    assert safe("\x1b[2Jboo") == "\N{REPLACEMENT CHARACTER}[2Jboo"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (0, "0"),
        (0.4, "0.4"),
        (3.0, "3"),
        (9.94, "9.9"),
        (9.96, "10"),
        (811.6, "812"),
        (120000.2, "120000"),
    ],
)
def test_milliseconds(value: float | None, text: str) -> None:
    assert ms(value) == text


@pytest.mark.parametrize(
    ("value_ms", "text"),
    [(None, "-"), (12.3, "12 ms"), (999.0, "999 ms"), (1000.0, "1.0 s"), (119_949.0, "119.9 s"),
     (120_000.0, "2 min 00 s"), (3_599_600.0, "1 h 00 min"), (7_384_000.0, "2 h 03 min")],
)  # fmt: skip
def test_lengths_of_time(value_ms: float | None, text: str) -> None:
    assert span(value_ms) == text


@pytest.mark.parametrize(("value", "text"), [(None, "-"), (0.0, "$0.00"), (0.00123, "$0.0012"), (12.345, "$12.35")])
def test_dollars(value: float | None, text: str) -> None:
    assert usd(value) == text


def test_moments_and_counts() -> None:
    assert moment(1_795_341_600_999) == "2026-11-22 10:00:00"
    assert (moment(None), count(1, "call"), count(2000, "call")) == ("-", "1 call", "2,000 calls")


def printed(width: int) -> list[str]:
    out = Console(file=io.StringIO(), width=width, highlight=False)
    columns = (Column("name"), Column("least", right=True, rank=2), Column("less", right=True, rank=1), Column("end"))
    print_table(out, columns, [("call-1", "1", Text("22", "red"), "ok"), ("c", "333", "4", "never mind")])
    return out.file.getvalue().splitlines()  # type: ignore[attr-defined]


def test_table_is_as_wide_as_its_cells_and_has_no_blanks_at_the_end() -> None:
    assert printed(80) == [
        "name    least  less  end",
        "call-1      1    22  ok",
        "c         333     4  never mind",
    ]


def test_table_leaves_out_the_least_columns_where_it_is_too_narrow() -> None:
    assert printed(30)[0] == "name    less  end"
    assert printed(20)[0] == "name    end"


def test_pipe_gets_no_colours_and_tables_that_are_not_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("COLUMNS", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    out = io.StringIO()
    table, layout = console(out, table=True), console(out)
    assert (table.width >= 1000, layout.width, layout.color_system) == (True, 100, None)
    monkeypatch.setenv("COLUMNS", "77")
    assert console(out, table=True).width == 77


def test_encoding_without_blocks_gets_plain_characters() -> None:
    latin = Console(file=io.TextIOWrapper(io.BytesIO(), encoding="latin-1"))
    assert glyphs(latin).running == "#"
    assert glyphs(Console(file=io.TextIOWrapper(io.BytesIO(), encoding="utf-8"))).running == "█"
