"""The metrics: one table, a registry of their own."""

from __future__ import annotations

import pytest

from voicelog_sink.metrics import METRICS, PREFIX, Metrics


def test_every_metric_of_the_table_is_served_with_its_kind_and_help() -> None:
    metrics = Metrics()
    for row in METRICS:
        if row.kind == "counter":
            metrics.count(row.short, 1, **dict.fromkeys(row.labels, "x"))
    text = metrics.exposition().decode()
    for row in METRICS:
        assert f"# TYPE {row.name} {row.kind}\n" in text
        assert f"# HELP {row.name} {row.help} ({row.unit})\n" in text


def test_two_daemons_do_not_share_their_metrics() -> None:
    one, other = Metrics(), Metrics()
    one.count("expired_total", 3)
    assert (one.value("expired_total"), other.value("expired_total")) == (3, 0)


def test_unknown_name_is_an_error() -> None:
    with pytest.raises(KeyError):
        Metrics().count("no_such_total")


def test_time_of_a_block_is_counted_for_its_state_even_when_it_fails() -> None:
    metrics = Metrics()
    with pytest.raises(ZeroDivisionError), metrics.in_state("write"):
        1 / 0  # noqa: B018
    assert metrics.value("loop_seconds_total", state="write") > 0


def test_names_are_unique_and_have_the_prefix_once() -> None:
    names = [row.name for row in METRICS]
    assert len(set(names)) == len(names)
    assert all(name.count(PREFIX) == 1 for name in names)
