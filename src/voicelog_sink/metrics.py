"""The sink's own metrics: one table of rows that feeds Prometheus and the documentation."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import attrs
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.registry import Collector

from voicelog_sink.bulk import BulkHistogram

PREFIX = "voicelog_sink_"
SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300)

ANOMALY = ("name", "provider", "model", "figure", "measure", "unit", "direction", "worse")
"""The labels of one anomaly, by the fields of `voicelog-sink anomalies --json`."""


@attrs.frozen
class MetricRow:
    """One metric; `short` is its name without the prefix, `kind` one of counter, gauge, histogram."""

    short: str
    kind: str
    unit: str
    labels: tuple[str, ...]
    help: str

    @property
    def name(self) -> str:
        """The name as Prometheus sees it."""
        return PREFIX + self.short


METRICS: tuple[MetricRow, ...] = (
    MetricRow("consumed_total", "counter", "records", ("topic",), "records taken from the broker"),
    MetricRow("events_stored_total", "counter", "events", (), "events whose rows the store has acknowledged"),
    MetricRow("store_rows_total", "counter", "rows", ("table",), "rows that the store has acknowledged"),
    MetricRow("store_attempts_total", "counter", "writes", (), "writes that were tried, those tried again included"),
    MetricRow("store_request_seconds", "histogram", "seconds", ("table",),
              "from sending one request of CQL to its answer or failure; with SQLite one transaction, table *"),
    MetricRow("rows_per_request", "histogram", "rows", (), "rows that go to the store in one request or transaction"),
    MetricRow("store_errors_total", "counter", "requests", ("reason",),
              "requests that the store refused or did not answer, by the error: those of rows that are dead-lettered, "
              "and of writes that are tried again"),
    MetricRow("store_retries_total", "counter", "writes", ("reason",), "writes tried again, by the error"),
    MetricRow("duplicates_total", "counter", "events", (),
              "events that this process had stored before: the same rows again, since it last started"),
    MetricRow("store_up", "gauge", "1", (), "1 when the store took or answered the last thing it was asked"),
    MetricRow("dlq_produced_total", "counter", "records", ("reason",), "dead letters that the broker has acknowledged"),
    MetricRow("dlq_retries_total", "counter", "records", (), "dead letters that were tried again"),
    MetricRow("dlq_failed_total", "counter", "records", ("reason",),
              "dead letters that could not be written, each time, by the broker's error: they hold their offsets"),
    MetricRow("dlq_pending", "gauge", "records", (), "dead letters that wait for their acknowledgement"),
    MetricRow("decode_errors_total", "counter", "records", ("reason",), "records that are no event that can be stored"),
    MetricRow("expired_total", "counter", "events", (), "events older than their time to live, which are not stored"),
    MetricRow("erased_total", "counter", "events", (), "events of calls and persons that were erased: not stored"),
    MetricRow("commits_total", "counter", "commits", ("result",), "commits of offsets, by ok or the broker's error"),
    MetricRow("committed_offset", "gauge", "offset", ("topic", "partition"),
              "the offset that the broker has as committed, of each partition that this process owns"),
    MetricRow("consumer_lag", "gauge", "messages", ("topic", "partition"), "messages that are yet to be stored"),
    MetricRow("assigned_partitions", "gauge", "partitions", (), "partitions that this process owns"),
    MetricRow("rebalances_total", "counter", "rebalances", ("event",), "partitions assigned, revoked or lost"),
    MetricRow("loop_seconds_total", "counter", "seconds", ("state",),
              "where the time goes: the loop's thread in poll, decode, backpressure and commit, the writer's in write, "
              "derive, dlq and retry_wait; what is missing to a second a second each is waited for"),
    MetricRow("watermark_age_seconds", "gauge", "seconds", (),
              "how long the oldest batch has been taken for and is not seen through: grows while the store is away"),
    MetricRow("inflight_rows", "gauge", "rows", (), "rows of events that were taken and are not seen through"),
    MetricRow("inflight_bytes", "gauge", "bytes", (), "records that were taken and are not seen through"),
    MetricRow("paused", "gauge", "1", (), "1 while no records are taken, since the store does not keep up or is away"),
    MetricRow("batch_records", "histogram", "records", (), "records a batch"),
    MetricRow("store_write_seconds", "histogram", "seconds", (), "time of one write that the store acknowledged"),
    MetricRow("event_to_store_seconds", "histogram", "seconds", (),
              "from the broker's timestamp of a batch's oldest record to the store's acknowledgement"),
    MetricRow("derived_total", "counter", "keys", (), "summaries and rollups that were computed"),
    MetricRow("derived_pending", "gauge", "keys", (),
              "calls and minutes of metrics that changed and are not recomputed yet"),
    MetricRow("derived_pending_seconds", "gauge", "seconds", (),
              "for how long the first of them waits: over 60, and derived rows are late for want of time"),
    MetricRow("derived_failures_total", "counter", "runs", ("reason",), "runs that failed, to be tried again"),
    MetricRow("derived_refused_total", "counter", "rows", (),
              "rows that rollups are made from and the store refused: their events are stored, and missing in rollups"),
    MetricRow("anomalies", "gauge", "measures", ("worse",),
              "measures that depart now from the same hour on earlier days, by whether that is bad (true, false, empty "
              "for custom metrics). One member of the group serves this and the gauges that follow"),
    MetricRow("anomaly_z", "gauge", "spreads", ANOMALY, "how many spreads each of those is above what is usual"),
    MetricRow("anomaly_value", "gauge", "label unit", ANOMALY, "what each of those is in the latest hour"),
    MetricRow("anomaly_usual", "gauge", "label unit", ANOMALY, "what is usual then: the median of earlier days"),
    MetricRow("anomaly_since_timestamp", "gauge", "seconds", ANOMALY, "when it began, seconds since the epoch"),
    MetricRow("anomalies_judged", "gauge", "measures", (), "measures that the last check could judge"),
    MetricRow("anomalies_not_judged", "gauge", "measures", ("reason",),
              "measures that it could not judge: no_baseline, too_few values"),
    MetricRow("anomalies_checked_timestamp", "gauge", "seconds", (),
              "when the last check that succeeded began, seconds since the epoch; 0 before the first"),
    MetricRow("anomalies_check_seconds", "gauge", "seconds", (), "how long it took, in a process of its own"),
    MetricRow("anomalies_failures_total", "counter", "checks", (), "checks that failed; the gauges stay as they were"),
    MetricRow("last_error_timestamp", "gauge", "seconds", (), "when something last failed, seconds since the epoch"),
)  # fmt: skip

_BUCKETS = {
    "batch_records": (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000),
    "rows_per_request": (1, 2, 4, 8, 16, 32, 100, 1_000, 10_000),
    "store_request_seconds": (0.001, 0.002, *SECONDS[:11]),
}
_BULK = ("rows_per_request", "store_request_seconds")
"""Histograms of every request: `observe_many` adds a whole write's."""


class Metrics:
    """The metrics of one daemon, in a registry of their own. Thread-safe."""

    def __init__(self) -> None:
        """Make every metric of the table, at 0."""
        self.registry = CollectorRegistry()
        self._metrics = {row.short: self._make(row) for row in METRICS}
        self._replaced: dict[str, set[tuple[str, ...]]] = {}

    def count(self, name: str, amount: float = 1, **labels: str) -> None:
        """Add to a counter."""
        metric = self._labelled(name, labels)
        assert isinstance(metric, Counter)
        metric.inc(amount)

    def set(self, name: str, value: float, **labels: str) -> None:
        """Set a gauge."""
        metric = self._labelled(name, labels)
        assert isinstance(metric, Gauge)
        metric.set(value)

    def replace(self, name: str, values: Mapping[tuple[str, ...], float]) -> None:
        """Set a labelled gauge to these values, each by its labels in the table's order, and to no others.

        Who reads meanwhile may see values that go, and misses none that stays. For one thread a gauge.
        """
        metric = self._metrics[name]
        assert isinstance(metric, Gauge)
        for labels, value in values.items():
            metric.labels(*labels).set(value)
        for gone in self._replaced.get(name, set()) - values.keys():
            metric.remove(*gone)
        self._replaced[name] = set(values)

    def observe(self, name: str, value: float) -> None:
        """Add a value to a histogram."""
        metric = self._metrics[name]
        assert isinstance(metric, Histogram)
        metric.observe(value)

    def observe_many(self, name: str, values: Iterable[float], *labels: str) -> None:
        """Add values to a histogram of single requests, its labels in the table's order."""
        metric = self._metrics[name]
        assert isinstance(metric, BulkHistogram)
        metric.add(values, labels)

    def failed(self) -> None:
        """Note that something failed just now."""
        self.set("last_error_timestamp", time.time())

    @contextmanager
    def in_state(self, state: str) -> Iterator[None]:
        """Add the block's time to loop_seconds_total{state}."""
        start_s = time.monotonic()
        try:
            yield
        finally:
            self.count("loop_seconds_total", time.monotonic() - start_s, state=state)

    def value(self, name: str, **labels: str) -> float:
        """Return a counter's or a gauge's value; 0 when it was never touched."""
        return self.registry.get_sample_value(PREFIX + name, labels) or 0.0

    def exposition(self) -> bytes:
        """Return all of them in Prometheus's text format."""
        return generate_latest(self.registry)

    def _make(self, row: MetricRow) -> Collector:
        name, text = row.name, f"{row.help} ({row.unit})"
        if row.kind == "counter":
            return Counter(name, text, row.labels, registry=self.registry)
        if row.kind == "gauge":
            return Gauge(name, text, row.labels, registry=self.registry)
        buckets = _BUCKETS.get(row.short, SECONDS)
        if row.short in _BULK:
            return self._registered(BulkHistogram(name, text, row.labels, buckets))
        return Histogram(name, text, row.labels, registry=self.registry, buckets=buckets)

    def _registered(self, metric: Collector) -> Collector:
        self.registry.register(metric)
        return metric

    def _labelled(self, name: str, labels: dict[str, str]) -> Collector:
        metric = self._metrics[name]
        assert isinstance(metric, (Counter, Gauge))
        return metric.labels(**labels) if labels else metric
