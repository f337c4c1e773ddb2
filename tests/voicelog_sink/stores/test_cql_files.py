"""The cql files: their order, their placeholders, their statements."""

from __future__ import annotations

import pytest

from voicelog_sink.stores.base import StoreMisconfigured
from voicelog_sink.stores.cql_ddl import create_keyspace, placeholders, replication, window_days
from voicelog_sink.stores.cql_files import Migration, migrations
from voicelog_sink.tables import TABLES, VIEWS


def test_files_are_numbered_without_a_gap_and_one_stands_for_each_table_and_view() -> None:
    found = migrations()
    assert [m.version for m in found] == list(range(1, len(found) + 1))
    assert {m.name for m in found} == {*TABLES, *VIEWS, "schema_migrations"}


def test_every_statement_can_be_repeated() -> None:
    for migration in migrations():
        for statement in migration.statements(placeholders("ks", 90)):
            assert "IF NOT EXISTS" in statement, statement
            assert '"ks".' in statement, statement


def test_statements_are_split_and_comments_and_placeholders_resolved() -> None:
    migration = Migration(1, "a", "-- it's a comment; {nothing}\nCREATE {x};\n\n  -- more\nALTER {'class': '{y}'};\n")
    assert migration.statements({"x": "A", "y": "B"}) == ["CREATE A", "ALTER {'class': 'B'}"]


def test_placeholder_without_a_value_is_an_error() -> None:
    with pytest.raises(KeyError, match="ttl"):
        Migration(1, "a", "CREATE {ttl};").statements({})


def test_checksum_tells_a_changed_file() -> None:
    assert Migration(1, "a", "x").checksum != Migration(1, "a", "y").checksum


@pytest.mark.parametrize(("ttl_days", "days"), [(1, 3), (90, 3), (91, 4), (365, 13)])
def test_a_lifetime_has_at_most_thirty_windows(ttl_days: int, days: int) -> None:
    assert window_days(ttl_days) == days
    assert ttl_days / window_days(ttl_days) <= 30


@pytest.mark.parametrize(
    ("setting", "expected"),
    [("1", {"dc1": 1}), ("3", {"dc1": 3}), ("eu:3,us:2", {"eu": 3, "us": 2}), ("eu:3, us:2", {"eu": 3, "us": 2})],
)
def test_replication_is_a_factor_here_or_one_a_datacenter(setting: str, expected: dict[str, int]) -> None:
    assert replication(setting, "dc1") == expected


@pytest.mark.parametrize("setting", ["", "0", "three", "eu:3,2", "eu:", "eu:x", "eu:3,eu:2", "a'b:3", "-1"])
def test_wrong_replication_is_refused(setting: str) -> None:
    with pytest.raises(StoreMisconfigured, match="VOICELOG_CQL_REPLICATION is"):
        replication(setting, "dc1")


def test_tablets_are_off_on_scylladb_alone() -> None:
    cassandra = (
        "CREATE KEYSPACE IF NOT EXISTS \"ks\" WITH replication = {'class': 'NetworkTopologyStrategy', 'eu': 3, 'us': 2}"
    )
    assert create_keyspace("ks", {"eu": 3, "us": 2}, scylla=False) == cassandra
    scylla = cassandra + " AND tablets = {'enabled': false}"
    assert create_keyspace("ks", {"eu": 3, "us": 2}, scylla=True) == scylla
