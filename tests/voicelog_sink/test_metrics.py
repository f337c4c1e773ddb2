"""The metrics: one table, a registry of their own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from voicelog_sink.bulk import BulkHistogram
from voicelog_sink.metrics import METRICS, PREFIX, Metrics
from voicelog_sink.request_log import RequestLog
from voicelog_sink.stores.base import Asked


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


def test_replaced_gauge_has_the_new_values_alone_and_none_that_stays_is_ever_away() -> None:
    metrics = Metrics()
    metrics.replace("anomalies", {("true",): 1, ("",): 2})
    kept = metrics._metrics["anomalies"].labels("true")  # type: ignore[attr-defined]
    metrics.replace("anomalies", {("true",): 3, ("false",): 4})
    assert metrics._metrics["anomalies"].labels("true") is kept  # type: ignore[attr-defined]
    assert {worse: metrics.value("anomalies", worse=worse) for worse in ("true", "false")} == {"true": 3, "false": 4}
    assert PREFIX + 'anomalies{worse=""}' not in metrics.exposition().decode()


def test_names_are_unique_and_have_the_prefix_once() -> None:
    names = [row.name for row in METRICS]
    assert len(set(names)) == len(names)
    assert all(name.count(PREFIX) == 1 for name in names)


@given(st.dictionaries(st.sampled_from("abc"), st.lists(st.integers(0, 80).map(lambda n: n / 4), min_size=1)))
def test_histogram_of_many_values_is_the_one_that_single_values_make(given: dict[str, list[float]]) -> None:
    one, other, bounds = CollectorRegistry(), CollectorRegistry(), (0.5, 1, 10)
    single = Histogram("took", "time", ("table",), registry=one, buckets=bounds)
    bulk = BulkHistogram("took", "time", ("table",), bounds)
    other.register(bulk)
    for label, values in given.items():
        for value in values:
            single.labels(label).observe(value)
        bulk.add(values[:2], (label,))
        bulk.add(values[2:], (label,))
    expected = [line for line in generate_latest(one).splitlines() if b"_created" not in line]
    assert generate_latest(other).splitlines() == expected


def test_requests_of_a_write_are_told_by_table_and_error_and_only_once() -> None:
    metrics = Metrics()
    requests = RequestLog(metrics, lambda: None)
    for asked in (Asked("calls", 8, 1.0, 1.5), Asked("calls", 2, 1.0, 3.0, "WriteTimeout"), Asked("list", 1, 0.0, 9.0)):
        requests.note(asked)
    assert metrics.value("rows_per_request_count") == 0
    requests.report()
    requests.report()
    assert (metrics.value("rows_per_request_count"), metrics.value("rows_per_request_sum")) == (3, 11)
    assert metrics.value("store_request_seconds_count", table="calls") == 2
    assert metrics.value("store_request_seconds_sum", table="calls") == 2.5
    assert metrics.value("store_request_seconds_bucket", table="list", le="10.0") == 1
    assert metrics.value("store_errors_total", reason="WriteTimeout") == 1
