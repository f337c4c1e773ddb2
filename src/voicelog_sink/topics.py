"""The topics: what they should be, what they are, and how one becomes the other."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import attrs
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # they are imported there, not in its __all__
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    ResourceType,
)

from voicelog.events import TOPIC_DEAD_LETTERS, TOPICS
from voicelog.settings import Settings
from voicelog_sink.client import make_client
from voicelog_sink.embedded import is_embedded
from voicelog_sink.errors import BrokerRefused, BrokerUnavailable, TopicsMissing
from voicelog_sink.stores.base import Difference

INIT = "voicelog-sink init"
OF_DEV = "set VOICELOG_TOPIC_PREFIX to what `voicelog-sink dev` has: that makes its topics as it starts"
TOPIC_MAX_BYTES = 8 * 1024 * 1024
DEAD_LETTERS_MAX_BYTES = 16 * 1024 * 1024 + 512 * 1024
DEAD_LETTERS_RETENTION = 4
MAX_RETENTION_MS = 30 * 24 * 3600 * 1000
ASK_TIMEOUT_S = 10.0
RETRY_S = 0.5
SETTLE_S = 10.0
"""How long the cluster may take to show a topic that it has just made."""

TRANSIENT = frozenset({
    KafkaError._TIMED_OUT, KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError._RESOLVE,
    KafkaError.REQUEST_TIMED_OUT, KafkaError.COORDINATOR_NOT_AVAILABLE, KafkaError.NOT_CONTROLLER,
    KafkaError.BROKER_NOT_AVAILABLE,
})  # fmt: skip


@attrs.frozen
class Topic:
    """A topic as it should be or as it is; `replication` 0 is whatever the broker chooses."""

    name: str
    partitions: int
    replication: int
    config: Mapping[str, str]


def wanted(settings: Settings) -> list[Topic]:
    """Return the topics as the settings want them, the dead letters last."""
    # The broker's own clock stamps what comes in: it refuses messages from a program whose clock runs an hour ahead,
    # and keeps those of one that runs behind for too short a time. An event carries its own ts.
    stamped = {"message.timestamp.type": "LogAppendTime"}
    events = [_topic(settings, name, settings.topic_retention_ms, TOPIC_MAX_BYTES, stamped) for name in TOPICS]
    keep_ms = max(
        settings.topic_retention_ms, min(settings.topic_retention_ms * DEAD_LETTERS_RETENTION, MAX_RETENTION_MS)
    )
    return [*events, _topic(settings, TOPIC_DEAD_LETTERS, keep_ms, DEAD_LETTERS_MAX_BYTES, {})]


def differences(want: Topic, live: Topic | None) -> list[Difference]:
    """Return each way in which a topic is not what it should be; more partitions than wanted are none. Pure."""
    if live is None:
        return [Difference(f"topic {want.name} does not exist", INIT)]
    found = [
        Difference(f"topic {want.name} has {name}={live.config[name]}, expected {value}", INIT)
        for name, value in want.config.items()
        if name in live.config and live.config[name] != value
    ]
    if live.partitions < want.partitions:
        what = f"topic {want.name} has {live.partitions} partitions, expected at least {want.partitions}"
        found.append(Difference(what, INIT))
    if want.replication and live.replication != want.replication:
        what = f"topic {want.name} has {live.replication} replicas, expected {want.replication}"
        found.append(Difference(what, "move the replicas with the broker's own tools"))
    return found


class TopicAdmin:
    """Reads and makes the topics. Used by one thread."""

    def __init__(self, settings: Settings) -> None:
        """Make the client; nothing is connected yet."""
        self._settings = settings
        self._admin = make_client(AdminClient, {"client.id": "voicelog-sink-admin", **settings.kafka()})

    def wait(self, timeout_ms: int) -> None:
        """Return once the broker answers; raises BrokerUnavailable after `timeout_ms`."""
        end_s = time.monotonic() + timeout_ms / 1000
        while True:
            try:
                self.names(min(ASK_TIMEOUT_S, max(RETRY_S, end_s - time.monotonic())))
            except BrokerUnavailable as exc:
                if (left_s := end_s - time.monotonic()) <= 0:
                    raise BrokerUnavailable(unreachable(self._settings.brokers, timeout_ms, str(exc))) from exc
                time.sleep(min(RETRY_S, left_s))
            else:
                return

    def wait_for_topics(self, timeout_ms: int) -> None:
        """Return once the broker answers and has every topic; raises BrokerUnavailable or TopicsMissing."""
        end_s = time.monotonic() + timeout_ms / 1000
        self.wait(timeout_ms)
        while missing := self.missing():
            if (left_s := end_s - time.monotonic()) <= 0:
                message = (
                    f"broker {self._settings.brokers} has no topic {', '.join(missing)} "
                    f"(waited {_seconds(timeout_ms)}): make them with `{INIT}`, or set VOICELOG_TOPIC_PREFIX to theirs"
                )
                raise TopicsMissing(message)
            time.sleep(min(RETRY_S, left_s))

    def missing(self) -> list[str]:
        """Return the names of the topics that do not exist."""
        there = self.names(ASK_TIMEOUT_S)
        return [topic.name for topic in wanted(self._settings) if topic.name not in there]

    def names(self, timeout_s: float) -> set[str]:
        """Return every topic's name; raises BrokerUnavailable."""
        try:
            return {n for n, t in self._admin.list_topics(timeout=timeout_s).topics.items() if t.error is None}
        except KafkaException as exc:
            raise translated(exc) from exc

    def is_embedded(self) -> bool:
        """Return whether it is the embedded broker, which knows no settings of topics, rights or members of groups."""
        try:
            return is_embedded(self._admin.list_topics(timeout=ASK_TIMEOUT_S).cluster_id)
        except KafkaException as exc:
            raise translated(exc) from exc

    def retention_ms(self) -> dict[str, int]:
        """Return for how long each of the topics that exist keeps its messages; -1 is for ever."""
        if self.is_embedded():
            message = "the embedded broker knows no retention but some 5 MB a partition and the end of its process"
            raise BrokerRefused(message)
        return {name: int(topic.config.get("retention.ms", -1)) for name, topic in self._live().items()}

    def check(self) -> list[Difference]:
        """Compare the live topics with the wanted ones; change nothing. Raises BrokerUnavailable, BrokerRefused.

        Of the embedded broker's they only have to exist.
        """
        if self.is_embedded():
            return [Difference(f"topic {name} does not exist", OF_DEV) for name in self.missing()]
        live = self._live()
        return [found for topic in wanted(self._settings) for found in differences(topic, live.get(topic.name))]

    def init(self) -> list[str]:
        """Make the topics, or change them to what they should be; return what was done, a sentence each.

        Raises BrokerUnavailable, and BrokerRefused, as the embedded broker does where one is missing.
        """
        if self.is_embedded():
            return self._init_embedded()
        live = self._live()
        done: list[str] = []
        for topic in wanted(self._settings):
            done += self._complete(topic, live[topic.name]) if topic.name in live else self._create(topic)
        self._settle()
        return done

    def _init_embedded(self) -> list[str]:
        if missing := self.missing():
            message = f"the embedded broker has no topic {', '.join(missing)}, and makes none later: {OF_DEV}"
            raise BrokerRefused(message)
        return []

    def _create(self, topic: Topic) -> list[str]:
        new = NewTopic(topic.name, topic.partitions, topic.replication or -1, config=dict(topic.config))
        try:
            self._admin.create_topics([new])[topic.name].result()
        except KafkaException as exc:
            if exc.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS:
                return []
            raise translated(exc, f"topic {topic.name} can't be made: ") from exc
        return [f"made topic {topic.name} with {topic.partitions} partitions"]

    def _complete(self, want: Topic, live: Topic) -> list[str]:
        try:
            return [*self._grow(want, live), *self._configure(want, live)]
        except KafkaException as exc:
            raise translated(exc, f"topic {want.name} can't be changed: ") from exc

    def _grow(self, want: Topic, live: Topic) -> list[str]:
        if live.partitions >= want.partitions:
            return []
        self._admin.create_partitions([NewPartitions(want.name, want.partitions)])[want.name].result()
        return [f"grew topic {want.name} from {live.partitions} to {want.partitions} partitions"]

    def _configure(self, want: Topic, live: Topic) -> list[str]:
        changed = {n: v for n, v in want.config.items() if n in live.config and live.config[n] != v}
        if not changed:
            return []
        entries = [ConfigEntry(n, v, incremental_operation=AlterConfigOpType.SET) for n, v in changed.items()]
        resource = ConfigResource(ResourceType.TOPIC, want.name, incremental_configs=entries)
        self._admin.incremental_alter_configs([resource])[resource].result()
        return [f"set {n}={v} on topic {want.name}, it was {live.config[n]}" for n, v in changed.items()]

    def _live(self) -> dict[str, Topic]:
        """Read the wanted topics that exist."""
        try:
            metadata = self._admin.list_topics(timeout=ASK_TIMEOUT_S).topics
            there = [topic.name for topic in wanted(self._settings) if topic.name in metadata]
            return {name: _read(name, metadata[name].partitions, self._config_of(name)) for name in there}
        except KafkaException as exc:
            raise translated(exc) from exc

    def _config_of(self, name: str) -> dict[str, str]:
        resource = ConfigResource(ResourceType.TOPIC, name)
        entries = self._admin.describe_configs([resource], request_timeout=ASK_TIMEOUT_S)[resource].result()
        return {n: entry.value for n, entry in entries.items() if entry.value is not None}

    def _settle(self) -> None:
        end_s = time.monotonic() + SETTLE_S
        while self.missing() and time.monotonic() < end_s:
            time.sleep(0.1)


def unreachable(address: str, timeout_ms: int, why: str) -> str:
    """Return the sentence for a broker that does not answer."""
    return (
        f"no Kafka broker answers at {address} (waited {_seconds(timeout_ms)}; {why}): start it, set VOICELOG_BROKERS "
        "or --brokers to where it is, or wait for longer with --start-timeout-ms"
    )


def _topic(settings: Settings, name: str, retention_ms: int, max_bytes: int, more: dict[str, str]) -> Topic:
    config = {
        "cleanup.policy": "delete",
        "retention.ms": str(retention_ms),
        "compression.type": settings.topic_compression,
        "max.message.bytes": str(max_bytes),
        **more,
    }
    if settings.topic_replication >= 3:
        config["min.insync.replicas"] = "2"
    return Topic(settings.topic_prefix + name, settings.topic_partitions, settings.topic_replication, config)


def _read(name: str, partitions: Mapping[int, Any], config: Mapping[str, str]) -> Topic:
    return Topic(name, len(partitions), min((len(p.replicas) for p in partitions.values()), default=0), config)


def translated(exc: KafkaException, what: str = "") -> BrokerUnavailable | BrokerRefused:
    """Return the sink's error for one of Kafka's, its sentence after `what`."""
    error = exc.args[0]
    kind = BrokerUnavailable if error.code() in TRANSIENT else BrokerRefused
    return kind(f"{what}{error.str().strip()} ({error.name()})")


def _seconds(timeout_ms: int) -> str:
    return f"{timeout_ms / 1000:g} s"
