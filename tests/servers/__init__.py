"""Real servers for the tests: Apache Kafka and Apache Cassandra, from Maven, each in a process of its own."""

from tests.servers.cassandra import CassandraServer
from tests.servers.kafka import KafkaServer
from tests.servers.server import JavaServer, ServerError

__all__ = ["CassandraServer", "JavaServer", "KafkaServer", "ServerError"]
