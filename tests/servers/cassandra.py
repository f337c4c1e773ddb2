"""A Cassandra database: one node."""

import socket
from collections.abc import Sequence
from pathlib import Path

from cassandra.cluster import NoHostAvailable

from tests.servers.cql import cql_session
from tests.servers.fetch import Distribution
from tests.servers.ports import free_ports
from tests.servers.server import JavaServer

# The name that SimpleSnitch gives to the one data centre it knows.
LOCAL_DC = "datacenter1"


class CassandraServer(JavaServer):
    """Apache Cassandra with views; what it acknowledged survives kill(), unless `durable` is false."""

    distribution = Distribution("cassandra", "5.0.5", ("org.apache.cassandra:cassandra-all:5.0.5",))
    java_versions = range(17, 18)
    heap = "1g"

    def __init__(self, *, jvm_options: Sequence[str] = (), durable: bool = True) -> None:
        """Takes durable=False to acknowledge, also a schema, before the commit log can be replayed."""
        super().__init__(jvm_options=jvm_options)
        self._port, self._storage_port = free_ports(2)
        self._durable = durable
        self._yaml = self.home / "cassandra.yaml"
        self._logback = self.home / "logback.xml"

    @property
    def contact_point(self) -> tuple[str, int]:
        """Host and port for the driver."""
        return "127.0.0.1", self._port

    def url(self, keyspace: str = "") -> str:
        """Gives the URL of a keyspace, or of the server."""
        path = f"/{keyspace}" if keyspace else ""
        return f"scylla://127.0.0.1:{self._port}{path}?local_dc={LOCAL_DC}"

    def prepare(self, jars: Path) -> None:
        """Writes cassandra.yaml and the log's settings."""
        self._logback.write_text(LOGBACK)
        self._yaml.write_text(
            YAML.format(
                home=self.home,
                port=self._port,
                storage_port=self._storage_port,
                # Periodic lets kill() lose the last tenth of a second, although it was acknowledged: the
                # marks in the commit log, without which nothing is replayed, are then set by a timer.
                commitlog_sync="batch" if self._durable else "periodic\ncommitlog_sync_period: 10s",
            )
        )
        self._jamm = next(jars.glob("jamm-*.jar"))

    def main(self) -> list[str]:
        """Names the options of Cassandra's start script that matter and the daemon's main class."""
        return [
            f"-javaagent:{self._jamm}",
            f"-Dcassandra.config={self._yaml.as_uri()}",
            f"-Dcassandra.storagedir={self.home}",
            f"-Dlogback.configurationFile={self._logback}",
            *PROPERTIES,
            *(() if self._durable else UNFLUSHED),
            *(f"--add-exports={package}=ALL-UNNAMED" for package in EXPORTS),
            *(f"--add-opens={package}=ALL-UNNAMED" for package in OPENS),
            "org.apache.cassandra.service.CassandraDaemon",
        ]

    def answers(self) -> bool:
        """Tells whether a CQL session can be opened and queried."""
        try:
            socket.create_connection(self.contact_point, timeout=1).close()
            with cql_session(self.url(), timeout_s=10) as session:
                return session.execute("SELECT release_version FROM system.local").one() is not None
        except (OSError, NoHostAvailable):
            return False


PROPERTIES = (
    "-Djdk.attach.allowAttachSelf=true",
    "-Dio.netty.tryReflectionSetAccessible=true",
    "-Dcassandra.skip_wait_for_gossip_to_settle=0",
    "-Dcassandra.ring_delay_ms=0",
    "-Dcassandra.shutdown_announce_in_ms=0",
)

# A new keyspace with all its tables then takes half as long; a server that is killed has forgotten it.
UNFLUSHED = ("-Dcassandra.test.flush_local_schema_changes=false",)

EXPORTS = (
    "java.base/jdk.internal.misc",
    "java.base/jdk.internal.ref",
    "java.base/sun.nio.ch",
    "java.management.rmi/com.sun.jmx.remote.internal.rmi",
    "java.rmi/sun.rmi.registry",
    "java.rmi/sun.rmi.server",
    "java.rmi/sun.rmi.transport.tcp",
    "java.sql/java.sql",
    "jdk.unsupported/sun.misc",
)

OPENS = (
    "java.base/java.io",
    "java.base/java.lang",
    "java.base/java.lang.module",
    "java.base/java.nio",
    "java.base/java.util",
    "java.base/java.util.concurrent",
    "java.base/java.util.concurrent.atomic",
    "java.base/jdk.internal.loader",
    "java.base/jdk.internal.math",
    "java.base/jdk.internal.misc",
    "java.base/jdk.internal.module",
    "java.base/jdk.internal.ref",
    "java.base/jdk.internal.reflect",
    "java.base/jdk.internal.util.jar",
    "java.base/sun.nio.ch",
    "jdk.management/com.sun.management.internal",
)

YAML = """\
cluster_name: voicelog-tests
num_tokens: 1
auto_bootstrap: false
partitioner: org.apache.cassandra.dht.Murmur3Partitioner
endpoint_snitch: SimpleSnitch
seed_provider:
  - class_name: org.apache.cassandra.locator.SimpleSeedProvider
    parameters: [{{seeds: "127.0.0.1:{storage_port}"}}]
listen_address: 127.0.0.1
rpc_address: 127.0.0.1
storage_port: {storage_port}
native_transport_port: {port}
data_file_directories: ["{home}/data"]
commitlog_directory: "{home}/commitlog"
saved_caches_directory: "{home}/saved_caches"
hints_directory: "{home}/hints"
cdc_raw_directory: "{home}/cdc_raw"
commitlog_sync: {commitlog_sync}
materialized_views_enabled: true
max_mutation_size: 4MiB
auto_snapshot: false
file_cache_size: 64MiB
read_request_timeout: 10s
range_request_timeout: 10s
write_request_timeout: 10s
request_timeout: 20s
"""

LOGBACK = """\
<configuration>
  <appender name="OUT" class="ch.qos.logback.core.ConsoleAppender">
    <encoder><pattern>%d %-5level [%thread] %logger{0}: %msg%n</pattern></encoder>
  </appender>
  <root level="INFO"><appender-ref ref="OUT"/></root>
</configuration>
"""
