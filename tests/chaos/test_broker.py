"""A broker that dies, freezes and comes back, under a daemon and under the library: the same sum."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path
from random import Random

import pytest
from tests.chaos.audit import audit, read_log, wait_until_done
from tests.chaos.daemons import SESSION_MS, OffsetWatch, daemon
from tests.chaos.load import Sent, fleet, sent
from tests.chaos.truth import Truth, producing
from tests.real.sinks import Place
from tests.running import Raw
from tests.servers import KafkaServer

from voicelog.wire import decode

pytestmark = [pytest.mark.real, pytest.mark.chaos, pytest.mark.timeout(600)]


def test_broker_that_is_killed_and_comes_back_during_load(
    fragile: Place, kafka: KafkaServer, random: Random, tmp_path: Path
) -> None:
    messages = [*sent(fleet(random, 200)), *garbage(40)]
    random.shuffle(messages)
    with daemon(fragile, tmp_path / "log") as running, OffsetWatch(fragile):
        running.wait_for("assigned: ")
        with producing(tmp_path, fragile, messages, 300) as producer:
            for _ in range(2):
                kafka.kill()
                kafka.start()
            truth = Truth(messages, producer.acks())
        wait_until_done(fragile)
        audit(fragile, truth)
        assert running.stop() == 0


def test_broker_that_is_frozen_for_longer_than_the_sessions_timeout(
    fragile: Place, kafka: KafkaServer, random: Random, tmp_path: Path
) -> None:
    messages = [*sent(fleet(random, 150)), *garbage(40)]
    random.shuffle(messages)
    with daemon(fragile, tmp_path / "log") as running, OffsetWatch(fragile):
        running.wait_for("assigned: ")
        with producing(tmp_path, fragile, messages, 300) as producer:
            kafka.pause()
            with pytest.raises(subprocess.TimeoutExpired):
                running.process.wait(SESSION_MS / 1000 * 4)
            kafka.resume()
            truth = Truth(messages, producer.acks())
        wait_until_done(fragile)
        audit(fragile, truth)
        assert running.stop() == 0


BOT = """
    import json, random, sys, voicelog
    brokers, prefix, name = sys.argv[1:]
    voicelog.configure(brokers=brokers, topic_prefix=prefix, service=name, host="h-" + name, flush_timeout_ms=120000,
                       health_interval_ms=500, slow_turn_ms=1, kafka_config={"reconnect.backoff.max.ms": "500"})
    chance = random.Random(name)

    @voicelog.stage("llm", provider="openai", model="gpt-4o-mini")
    def tokens():
        for n in range(chance.randrange(1, 9)):
            yield f"token {n} "

    def call(number):
        with voicelog.session(f"{name}-{number}", user=f"user-{number % 7}", variant=chance.choice("ab")):
            for _ in range(chance.randrange(1, 4)):
                with voicelog.turn() as turn:
                    turn.mark("user_speech_end", ago_ms=200)
                    with voicelog.stage("stt", provider="deepgram", model="nova-3") as stt:
                        stt.set(transcript="grüß Gott", confidence=0.9, language="de")
                    said = "".join(tokens())
                    with voicelog.stage("tts", provider="cartesia") as tts:
                        tts.set(text=said, voice="katie", characters=len(said))
                        tts.mark_first()
                    turn.mark("playback_start")
            try:
                with voicelog.stage("tool", arguments={"n": number}):
                    if chance.random() < 0.3:
                        raise TimeoutError("no answer within 2 s")
            except TimeoutError as failure:
                voicelog.log_error(failure)
            voicelog.metric("queue.depth", chance.random(), "1")
            voicelog.publish_log("WARNING", "caller was silent")
        voicelog.health(name, "ok", calls=number)

    for number in range(150):
        call(number)
        if number % 10 == 9:
            voicelog.flush(120)
    voicelog.shutdown(120)
    print(json.dumps(voicelog.stats()))
"""


def test_bots_of_the_library_go_on_while_the_broker_dies_and_what_it_acknowledged_is_stored(
    fragile: Place, kafka: KafkaServer, random: Random, tmp_path: Path
) -> None:
    """The truth is what the library says was delivered, and what stands in the topics."""
    bots = [bot(fragile, name) for name in ("front-desk", "billing")]
    try:
        with daemon(fragile, tmp_path / "log") as running, OffsetWatch(fragile):
            running.wait_for("assigned: ")
            kafka.kill()
            kafka.start()
            stats = [json.loads(one.communicate(timeout=240)[0]) for one in bots]
            assert [one["failed"] or one["dropped"] for one in stats] == [{}, {}]
            log = read_log(fragile)
            assert len(log) == sum(one["delivered"] for one in stats)
            found = [Sent(Raw(m.topic().removeprefix(fragile.prefix), m.value(), m.key(), m.headers() or []),
                          event=decode(m.value())) for m in log.values()]  # fmt: skip
            wait_until_done(fragile)
            audit(fragile, Truth(found, list(log)))
            assert running.stop() == 0
    finally:
        for one in bots:
            one.kill()
            one.wait()


def bot(place: Place, name: str) -> subprocess.Popen[bytes]:
    """Start a program that uses the library."""
    code = [sys.executable, "-c", textwrap.dedent(BOT), place.brokers, place.prefix, name]
    return subprocess.Popen(code, stdout=subprocess.PIPE)


def garbage(count: int) -> list[Sent]:
    """Return messages that must be dead-lettered."""
    return [Sent(Raw("stt-results", b"\xffgarbage %d" % n, b"%d" % n), "not_json") for n in range(count)]
