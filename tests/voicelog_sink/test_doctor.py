"""`doctor` where there is no real broker: beside the embedded one of `dev`, and with a store alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.calls import a_call, messages
from tests.running import committed, produce, running_sink, wait_until
from tests.voicelog_sink.ran import Ran, Run

from voicelog.events import TOPICS
from voicelog.settings import load
from voicelog_sink.cli import main
from voicelog_sink.embedded import EmbeddedBroker
from voicelog_sink.errors import BrokerRefused
from voicelog_sink.topics import OF_DEV, TopicAdmin

BROKER_NAMES = ["broker", "topics", "rights", "sinks", "lag", "dead letters", "broker's clock"]
STORE_NAMES = ["store", "schema", "store's rights", "disk"]


def examined(ran: Ran) -> dict[str, dict[str, str]]:
    """Return what doctor found, by name; how full this machine's disk is does not count."""
    assert ran.err == ""
    found = {line.pop("name"): line for line in ran.objects}
    if "disk" in found:
        assert found["disk"].pop("status") in ("ok", "warning")
    return found


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: str) -> Ran:
        status = main(arguments)
        return Ran(status, *capsys.readouterr())

    return run


def finding(status: str, what: str, remedy: str = "") -> dict[str, str]:
    return {"status": status, "what": what, "remedy": remedy}


def stored(brokers: str) -> int:
    return sum(committed(brokers, "voicelog-sink", TOPICS).values())


def admin(broker: EmbeddedBroker, **settings: str) -> TopicAdmin:
    return TopicAdmin(load({"brokers": broker.address, **settings}, {})[0])


def test_beside_dev_nothing_fails_and_what_its_broker_does_not_know_is_said(run: Run, tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/calls.db"
    with running_sink(tmp_path / "log", "dev", store=store, http="off") as running:
        brokers = running.wait_for("VOICELOG_BROKERS=").split("VOICELOG_BROKERS=")[1].split(")")[0]
        count = produce(brokers, messages(a_call("call-0", 25)))
        wait_until(lambda: stored(brokers) == count, "the commit of what was stored")
        ran = run("doctor", "--json", "--brokers", brokers, "--store", store)
    found = examined(ran)
    del found["disk"]
    assert (ran.status, list(found)) == (0, [*BROKER_NAMES, *STORE_NAMES[:-1]])
    assert found == {
        "broker": finding("ok", f"answers at {brokers}"),
        "topics": finding("ok", "all 5 are there; the embedded broker keeps no settings of theirs"),
        "rights": finding("ok", "the embedded broker lets everybody read and write"),
        "sinks": finding("unknown", "the embedded broker does not say who is in group 'voicelog-sink'"),
        "lag": finding("ok", "0 events wait to be stored"),
        "dead letters": finding("ok", "none in voicelog-dlq"),
        "broker's clock": finding("ok", "agrees with this machine's"),
        "store": finding("ok", f"answers at {store}"),
        "schema": finding("ok", "as it should be"),
        "store's rights": finding("ok", "may write"),
    }


def test_store_alone_is_looked_at_without_a_broker(run: Run, tmp_path: Path) -> None:
    place = ("--brokers", "127.0.0.1:1", "--store", f"sqlite:///{tmp_path}/calls.db")
    assert run("init", "--only", "store", *place).status == 0
    ran = run("doctor", "--json", "--only", "store", *place)
    assert (ran.status, list(examined(ran))) == (0, STORE_NAMES)


def test_store_alone_that_is_not_there_fails(run: Run, tmp_path: Path) -> None:
    ran = run("doctor", "--json", "--only", "store", "--store", f"sqlite:///{tmp_path}/no.db")
    found = examined(ran)
    assert (ran.status, found["store"]["status"], set(found)) == (1, "failed", set(STORE_NAMES))


def test_broker_alone_is_looked_at_without_a_store(run: Run, tmp_path: Path) -> None:
    broker = EmbeddedBroker()
    store = f"sqlite:///{tmp_path}/no.db"
    ran = run("doctor", "--json", "--only", "broker", "--brokers", broker.address, "--store", store)
    assert (ran.status, list(examined(ran))) == (0, BROKER_NAMES)


def test_prefix_that_dev_was_not_given_fails_and_its_remedy_is_not_init() -> None:
    broker = EmbeddedBroker("eu-")
    assert admin(broker, topic_prefix="eu-").check() == []
    assert [(found.what, found.remedy) for found in admin(broker).check()] == [
        (f"topic {name} does not exist", OF_DEV) for name in (*TOPICS, "voicelog-dlq")
    ]


def test_embedded_broker_refuses_at_once_what_it_cannot_make_or_say() -> None:
    broker = EmbeddedBroker("eu-")
    assert admin(broker, topic_prefix="eu-").init() == []
    with pytest.raises(BrokerRefused, match="has no topic stt-results"):
        admin(broker).init()
    with pytest.raises(BrokerRefused, match="knows no retention"):
        admin(broker).retention_ms()
