"""How far back --since looks."""

from __future__ import annotations

import pytest

from voicelog_sink.period import since_ms

NOW = 1_795_341_600_000


@pytest.mark.parametrize(
    ("text", "moment"),
    [("90s", NOW - 90_000), ("30m", NOW - 1_800_000), ("24h", NOW - 86_400_000), ("7d", NOW - 604_800_000),
     ("2w", NOW - 1_209_600_000), ("2026-11-22", NOW - 36_000_000), ("2026-11-22T10:00", NOW),
     ("2026-11-22T11:00+01:00", NOW), (" 24h ", NOW - 86_400_000), ("999999999d", 0),
     ("1.5h", NOW - 5_400_000), ("0.001s", NOW - 1), ("24H", NOW - 86_400_000), ("7D", NOW - 604_800_000),
     ("1950-01-01", 0)],
)  # fmt: skip
def test_lengths_and_moments_are_understood(text: str, moment: int) -> None:
    assert since_ms(text, NOW) == moment


@pytest.mark.parametrize(
    "text", ["", "yesterday", "24", "h", "-1h", "2026-13-01", "9999999999d", "1.h", ".5h", "1,5h", "1.5", "1e3s", "٣h"]
)
def test_what_is_no_time_says_what_was_expected(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no time: expected a length such as 30m, 24h or 7d, or a UTC date"):
        since_ms(text, NOW)
