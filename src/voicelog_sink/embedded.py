"""The embedded broker: librdkafka's own mock cluster, a real Kafka listener on 127.0.0.1 in this process.

It keeps about 5 MB a partition, in memory, 4 partitions a topic, and ends with the process: for one machine, not for
keeping.
"""

from __future__ import annotations

import attrs
from confluent_kafka import KafkaException, Producer

from voicelog.events import TOPIC_DEAD_LETTERS, TOPICS
from voicelog.settings import Settings
from voicelog_sink.client import make_client
from voicelog_sink.errors import BrokerUnavailable

START_TIMEOUT_S = 10.0
CLUSTER_ID = "mockCluster"
"""How the cluster id of every mock cluster begins; that of a broker is made otherwise."""
QUICK = {"fetch.wait.max.ms": "20"}
"""The mock cluster answers nothing on a connection while a fetch waits on it; asking for ends took ten seconds."""


class EmbeddedBroker:
    """A broker that lives as long as this object; `address` is its host:port."""

    def __init__(self, prefix: str = "") -> None:
        """Start it, with the topics made; raises BrokerUnavailable."""
        config = {"test.mock.num.brokers": 1, "bootstrap.servers": "embedded", "log_level": 4}
        self._cluster = make_client(Producer, config)
        self.address = self._start(prefix)

    def _start(self, prefix: str) -> str:
        try:
            brokers = self._cluster.list_topics(timeout=START_TIMEOUT_S).brokers.values()
            for name in (*TOPICS, TOPIC_DEAD_LETTERS):
                self._cluster.list_topics(prefix + name, timeout=START_TIMEOUT_S)
        except KafkaException as exc:
            message = f"the embedded broker did not start within {START_TIMEOUT_S:.0f} s: {exc.args[0].str()}"
            raise BrokerUnavailable(message) from exc
        return ",".join(f"{broker.host}:{broker.port}" for broker in brokers)


def is_embedded(cluster_id: str | None) -> bool:
    """Return whether the broker that gave this cluster id is an embedded one, of this process or of another."""
    return (cluster_id or "").startswith(CLUSTER_ID)


def at_broker(settings: Settings, address: str) -> Settings:
    """Return the settings for the embedded broker: its address, no login, and the oldest where it forgot some."""
    plain = {
        "brokers": address,
        "security_protocol": "PLAINTEXT",
        "kafka_config": {**settings.kafka_config, "auto.offset.reset": "earliest", **QUICK},
    }
    return attrs.evolve(settings, values={**settings.values, **plain})
