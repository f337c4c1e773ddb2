"""Playing events to a broker: each at its time, in order, and every one acknowledged."""

from __future__ import annotations

import pytest

from voicelog.settings import load
from voicelog_sink.demo import recorded
from voicelog_sink.embedded import EmbeddedBroker, at_broker
from voicelog_sink.errors import BrokerUnavailable
from voicelog_sink.player import Player

SETTINGS, _ = load({}, {})


def test_an_event_is_sent_when_it_is_due_and_not_before() -> None:
    now_s = 100.0
    broker = EmbeddedBroker()
    first, second = recorded()[:2]
    player = Player(at_broker(SETTINGS, broker.address), [(first, 100.0), (second, 101.0)], lambda: now_s)
    assert (player.is_done(), player.produced) == (False, 1)
    assert (player.is_done(), player.produced) == (False, 1)
    now_s = 101.0
    assert (player.is_done(), player.produced) == (True, 2)
    player.finish()


def test_event_that_the_broker_did_not_take_is_an_error_with_the_reason() -> None:
    broker = EmbeddedBroker()  # its topics have no prefix
    settings = at_broker(load({"topic_prefix": "none-"}, {})[0], broker.address)
    player = Player(settings, [(event, 0.0) for event in recorded()[:3]])
    assert player.is_done()
    with pytest.raises(BrokerUnavailable, match="has not taken 3 of 3 events: "):
        player.finish()
