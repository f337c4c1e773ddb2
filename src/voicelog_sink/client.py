"""How a Kafka client comes into being: its log lines joined to ours, a wrong setting told in one sentence."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from confluent_kafka import KafkaException

from voicelog.errors import ConfigError

kafka_log = logging.getLogger("voicelog_sink.librdkafka")

Client = TypeVar("Client")


def make_client(kind: Callable[..., Client], config: Mapping[str, Any]) -> Client:
    """Return a client of librdkafka's; connects to nothing yet. Raises ConfigError for a setting that it refuses."""
    try:
        return kind(dict(config), logger=kafka_log)
    except KafkaException as exc:
        message = (
            f"librdkafka refuses a setting: {exc.args[0].str()}; correct VOICELOG_KAFKA_CONFIG, or the "
            "VOICELOG_SECURITY_, VOICELOG_SASL_ or VOICELOG_SSL_ setting that it comes from"
        )
        raise ConfigError(message) from exc
