"""A Kafka broker: one KRaft node that is broker and controller."""

import subprocess
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from tests.servers.fetch import Distribution
from tests.servers.ports import free_ports
from tests.servers.server import JavaServer, ServerError


class KafkaServer(JavaServer):
    """Apache Kafka; what it acknowledged survives kill()."""

    distribution = Distribution(
        "kafka",
        "4.1.0",
        (
            "org.apache.kafka:kafka_2.13:4.1.0",
            "org.apache.kafka:kafka-tools:4.1.0",
            # Kafka's jars bring no log backend: without it the log is empty even when the start fails.
            "org.apache.logging.log4j:log4j-slf4j-impl:2.24.3",
        ),
    )
    java_versions = range(17, 100)
    heap = "512m"

    def __init__(self, *, jvm_options: Sequence[str] = (), settings: dict[str, str] | None = None) -> None:
        """Takes lines of server.properties that are added to or replace the usual ones."""
        super().__init__(jvm_options=jvm_options)
        self.port, self._controller_port = free_ports(2)
        self._settings = settings or {}
        self._properties = self.home / "server.properties"
        self._data = self.home / "data"

    @property
    def bootstrap(self) -> str:
        """The address for `bootstrap.servers`."""
        return f"127.0.0.1:{self.port}"

    def prepare(self, jars: Path) -> None:
        """Writes server.properties and formats the data directory if it is new."""
        settings = self._usual_settings() | self._settings
        self._properties.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        if not self._data.exists():
            self._format(jars)

    def main(self) -> list[str]:
        """Names the broker's main class."""
        return ["-Dorg.apache.logging.log4j.level=WARN", "kafka.Kafka", str(self._properties)]

    def answers(self) -> bool:
        """Tells whether a metadata request is answered with a live broker."""
        quiet = {"log_level": 0, "reconnect.backoff.max.ms": 200}
        client = AdminClient({"bootstrap.servers": self.bootstrap, **quiet})
        try:
            return bool(client.list_topics(timeout=1).brokers)
        except KafkaException:
            return False

    def _format(self, jars: Path) -> None:
        cluster_id = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=").replace("-", "A")
        arguments = ["format", "-t", cluster_id, "-c", str(self._properties)]
        command = self.java(jars, "kafka.tools.StorageTool", *arguments)
        run = subprocess.run(command, cwd=self.home, capture_output=True, text=True, timeout=120, check=False)
        if run.returncode:
            raise ServerError(
                f"formatting {self._data} for Kafka failed with status {run.returncode}; "
                f"its output:\n{run.stdout[-2000:]}{run.stderr[-2000:]}"
            )

    def _usual_settings(self) -> dict[str, str]:
        return SETTINGS | {
            "controller.quorum.voters": f"1@127.0.0.1:{self._controller_port}",
            "listeners": f"PLAINTEXT://{self.bootstrap},CONTROLLER://127.0.0.1:{self._controller_port}",
            "advertised.listeners": f"PLAINTEXT://{self.bootstrap}",
            "log.dirs": str(self._data),
        }


SETTINGS = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
    "auto.create.topics.enable": "false",
    "default.replication.factor": "1",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "1",
    # A killed broker cannot register again before its session is over: 9 s, if nothing is said.
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
    "group.initial.rebalance.delay.ms": "0",
    # So that a test need not wait for long until the group notices a member that was killed.
    "group.min.session.timeout.ms": "500",
    # No rule forbids anything, until a test makes one.
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "allow.everyone.if.no.acl.found": "true",
    "log.cleaner.dedupe.buffer.size": "8388608",
    "log.segment.delete.delay.ms": "1000",
}
