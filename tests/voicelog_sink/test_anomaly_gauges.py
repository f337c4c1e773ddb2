"""The gauges of anomalies: a real check of a real SQLite file, in the process that makes it."""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path
from random import Random

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.builders import sqlite_store
from tests.history import HOUR_MS, hour_rows, latencies, rollup, write

from voicelog.settings import Settings, load
from voicelog_sink.anomaly_gauges import FIRST_S, MOST_S, MOST_SHOWN, NICENESS, AnomalyGauges, Served, served
from voicelog_sink.metrics import METRICS, PREFIX, Metrics

HOUR = int(time.time() * 1000) // HOUR_MS
EVER = range(HOUR - 24 * 21, HOUR + 2)
EVERY_S = 120.0
LASTS = "import time; time.sleep(600)"


class Setup:
    """Gauges whose clock is set by hand."""

    def __init__(self, path: Path, *command: str, **given: object) -> None:
        self.now_s = 1_000.0
        self.metrics = Metrics()
        self.settings: Settings = load(
            {"store": f"sqlite:///{path}", "anomalies_every_ms": int(EVERY_S * 1000), "start_timeout_ms": 100, **given},
            {},
        )[0]
        more = {"command": (sys.executable, *command)} if command else {}
        self.gauges = AnomalyGauges(self.settings, self.metrics, clock=lambda: self.now_s, **more)

    def tick(self, after_s: float = 0.0, leads: bool = True) -> None:
        self.now_s += after_s
        self.gauges.on_tick(leads=leads)

    def check(self) -> None:
        """Let a check begin, and see it end."""
        self.tick()
        self.tick(EVERY_S)
        assert self.gauges._check is not None
        self.gauges._check.process.wait(60)
        self.tick()

    def served(self, name: str) -> dict[tuple[str, ...], float]:
        """Return what /metrics says of a gauge, by the values of its labels in the table's order."""
        (row,) = (row for row in METRICS if row.short == name)
        text = self.metrics.exposition().decode()
        samples = [one for family in text_string_to_metric_families(text) for one in family.samples]
        return {tuple(one.labels[n] for n in row.labels): one.value for one in samples if one.name == PREFIX + name}


def fill(path: Path) -> None:
    """Write hours of which the last two are three times as slow."""
    random = Random(6)
    store = sqlite_store(path, lambda: int(time.time() * 1000))
    write(
        store,
        hour_rows(EVER, lambda hour: rollup(latencies(random, 60, 1200.0 if hour >= HOUR - 1 else 400.0))),
    )
    store.close()


def test_what_departs_now_is_served_with_what_is_usual_and_since_when(tmp_path: Path) -> None:
    fill(tmp_path / "calls.db")
    setup = Setup(tmp_path / "calls.db")
    setup.check()
    assert setup.served("anomalies") == {("true",): 2}
    of = {labels[4]: labels for labels in setup.served("anomaly_z")}
    assert of["p50"] == ("llm", "openai", "gpt-4o", "duration_ms", "p50", "ms", "slower", "true")
    assert sorted(of) == ["p50", "p95"]
    value, usual = (setup.served(name)[of["p50"]] for name in ("anomaly_value", "anomaly_usual"))
    assert (value / usual) == pytest.approx(3, rel=0.3)
    assert setup.served("anomaly_z")[of["p50"]] > 5
    assert HOUR - 2 <= setup.served("anomaly_since_timestamp")[of["p50"]] * 1000 / HOUR_MS <= HOUR
    assert (setup.served("anomalies_judged"), setup.served("anomalies_failures_total")) == ({(): 4}, {(): 0})
    assert setup.served("anomalies_not_judged") == {("no_baseline",): 0, ("too_few",): 0}
    assert time.time() - setup.metrics.value("anomalies_checked_timestamp") < 100
    assert setup.metrics.value("anomalies_check_seconds") == 0  # by the clock of the test


def test_who_leads_no_more_serves_nothing(tmp_path: Path) -> None:
    fill(tmp_path / "calls.db")
    setup = Setup(tmp_path / "calls.db")
    setup.check()
    assert setup.served("anomaly_z")
    setup.tick(leads=False)
    names = ("anomalies", "anomaly_z", "anomaly_value", "anomaly_usual", "anomaly_since_timestamp")
    assert [setup.served(name) for name in names] == [{}] * len(names)
    assert setup.served("anomalies_judged") == {(): 0}


def test_check_that_fails_is_counted_warned_of_once_and_leaves_the_gauges(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    setup = Setup(tmp_path / "none.db")
    setup.metrics.replace("anomalies", {("true",): 3})
    with caplog.at_level(logging.WARNING):
        setup.check()
        (warning,) = caplog.messages
        setup.check()
    assert setup.metrics.value("anomalies_failures_total") == 2
    assert setup.served("anomalies") == {("true",): 3}
    assert caplog.messages == [warning]
    assert "status 1" in warning
    assert "no calls are stored yet" in warning


def test_program_that_can_not_be_started_is_a_check_that_failed(tmp_path: Path) -> None:
    setup = Setup(tmp_path / "calls.db")
    setup.gauges._command = (str(tmp_path / "nothing"),)
    setup.tick()
    setup.tick(EVERY_S)
    assert setup.metrics.value("anomalies_failures_total") == 1
    assert setup.gauges._check is None


def test_machine_without_a_place_for_temporary_files_is_a_check_that_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container whose file system can't be written: the daemon goes on."""
    setup = Setup(tmp_path / "calls.db")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    setup.tick()
    setup.tick(EVERY_S)
    assert setup.metrics.value("anomalies_failures_total") == 1
    assert setup.gauges._check is None


HALF = '{"judged": 1, "no_baseline": 0, "too_few": 0, "anomalies": [{"until": null}]}'


@pytest.mark.parametrize("answer", ["", "[1]", "{}", HALF, "no JSON"])
def test_answer_that_can_not_be_read_is_a_check_that_failed(tmp_path: Path, answer: str) -> None:
    setup = Setup(tmp_path / "calls.db", "-c", f"print({answer!r})")
    setup.check()
    assert setup.metrics.value("anomalies_failures_total") == 1
    assert setup.metrics.value("anomalies_checked_timestamp") == 0


def test_check_that_does_not_end_is_ended_and_has_failed(tmp_path: Path) -> None:
    setup = Setup(tmp_path / "calls.db", "-c", LASTS)
    setup.tick()
    setup.tick(EVERY_S)
    check = setup.gauges._check
    assert check is not None
    setup.tick(max(EVERY_S, MOST_S))
    assert check.process.poll() is None
    setup.tick(1.0)
    assert check.process.poll() is not None
    assert setup.metrics.value("anomalies_failures_total") == 1


@pytest.mark.parametrize("end", ["close", "step down"])
def test_check_that_runs_ends_with_its_owner(tmp_path: Path, end: str) -> None:
    setup = Setup(tmp_path / "calls.db", "-c", LASTS)
    setup.tick()
    setup.tick(EVERY_S)
    check = setup.gauges._check
    assert check is not None
    if end == "close":
        setup.gauges.close()
    else:
        setup.tick(leads=False)
    assert check.process.returncode is not None
    assert setup.metrics.value("anomalies_failures_total") == 0


def test_first_check_waits_until_the_group_is_calm_and_the_next_for_the_setting(tmp_path: Path) -> None:
    setup = Setup(tmp_path / "calls.db", "-c", LASTS)
    setup.tick()
    setup.tick(FIRST_S - 1)
    assert setup.gauges._check is None
    setup.tick(1)
    first = setup.gauges._check
    assert first is not None
    first.process.kill()
    first.process.wait()
    setup.tick()
    setup.tick(EVERY_S - 1)
    assert setup.gauges._check is None
    setup.tick(1)
    assert setup.gauges._check is not None
    setup.gauges.close()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_check_gives_way_to_the_sink(tmp_path: Path) -> None:
    setup = Setup(tmp_path / "calls.db", "-c", LASTS)
    setup.tick()
    setup.tick(EVERY_S)
    assert setup.gauges._check is not None
    fields = Path(f"/proc/{setup.gauges._check.process.pid}/stat").read_text().rpartition(")")[2].split()
    setup.gauges.close()
    assert int(fields[16]) >= NICENESS


def test_never_checks_where_the_setting_is_0(tmp_path: Path) -> None:
    setup = Setup(tmp_path / "calls.db", "-c", LASTS, anomalies_every_ms=0)
    setup.tick()
    setup.tick(10_000)
    assert setup.gauges._check is None


def test_what_is_over_is_not_served_and_of_many_the_strongest_are() -> None:
    one = {
        "name": "tts", "figure": "duration_ms", "measure": "p50", "unit": "ms", "direction": "faster", "worse": False,
        "value": 1.0, "median": 2.0, "z": -6.0, "since": "2026-11-26T04:04:00.000Z", "until": None,
    }  # fmt: skip
    many = [{**one, "group": {"provider": None, "model": f"m{n}"}} for n in range(MOST_SHOWN + 1)]
    over = {**one, "group": {"provider": None, "model": "over"}, "until": "2026-11-26T05:00:00.000Z"}
    metric = {**many[0], "measure": "p95", "worse": None}
    found = served({"judged": 5, "no_baseline": 1, "too_few": 2, "anomalies": [metric, *many, over]})
    assert found.by_metric["anomalies"] == {("false",): MOST_SHOWN + 1, ("",): 1}
    assert len(found.by_metric["anomaly_z"]) == MOST_SHOWN
    shown = ("tts", "", "m0", "duration_ms", "p50", "ms", "faster", "false")
    assert {name: values.get(shown) for name, values in found.by_metric.items() if name.startswith("anomaly_")} == {
        "anomaly_z": -6.0, "anomaly_value": 1.0, "anomaly_usual": 2.0, "anomaly_since_timestamp": 1795665840.0,
    }  # fmt: skip
    assert found.by_metric["anomalies_not_judged"] == {("no_baseline",): 1, ("too_few",): 2}
    assert not any(Served().by_metric.values())
