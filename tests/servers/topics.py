"""Topics of a Kafka broker that is given by its address."""

from collections.abc import Callable

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient


def delete_topics(brokers: str, prefix: str) -> None:
    """Deletes all topics whose names begin with the prefix and returns when the broker has done so."""
    client = AdminClient({"bootstrap.servers": brokers, "log_level": 0})
    names = [name for name in client.list_topics(timeout=30).topics if name.startswith(prefix)]
    if names:
        for deletion in client.delete_topics(names, operation_timeout=30).values():
            _ignoring_unknown(deletion.result)


def _ignoring_unknown(result: Callable[[float], None]) -> None:
    try:
        result(60)
    except KafkaException as error:
        if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
            raise
