"""Store URLs: what they name, and what is said of those that name nothing."""

from __future__ import annotations

import pytest

from voicelog.settings import load
from voicelog_sink.stores import make_store
from voicelog_sink.stores.base import StoreMisconfigured
from voicelog_sink.stores.url import CqlUrl, cql_url, sqlite_path


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///voicelog.db", "voicelog.db"),
        ("sqlite:////var/lib/calls.db", "/var/lib/calls.db"),
        ("sqlite:///some%20calls.db", "some calls.db"),
    ],
)
def test_sqlite_url_names_a_relative_or_absolute_file(url: str, path: str) -> None:
    assert sqlite_path(url) == path


@pytest.mark.parametrize("url", ["sqlite:", "sqlite://", "sqlite:///", "sqlite://calls.db", "sqlite:////var/lib/"])
def test_sqlite_url_without_a_file_is_refused(url: str) -> None:
    with pytest.raises(StoreMisconfigured, match=r"it names no file; expected sqlite:///voicelog\.db"):
        sqlite_path(url)


def test_sqlite_url_with_options_is_refused() -> None:
    with pytest.raises(StoreMisconfigured, match=r"unknown option 'mode=ro'"):
        sqlite_path("sqlite:///calls.db?mode=ro")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("scylla://db", CqlUrl((("db", 9042),))),
        ("cassandra://db:9043", CqlUrl((("db", 9043),))),
        ("scylla://a,b:9044/calls", CqlUrl((("a", 9044), ("b", 9044)), "calls")),
        ("scylla://a:1,b:2/calls_2?local_dc=eu-west", CqlUrl((("a", 1), ("b", 2)), "calls_2", "eu-west")),
        ("scylla://[::1]:9042/", CqlUrl((("::1", 9042),))),
    ],
)
def test_cql_url_names_hosts_keyspace_and_datacenter(url: str, expected: CqlUrl) -> None:
    assert cql_url(url) == expected


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("scylla://", "a host is missing"),
        ("scylla://a,,b/ks", "a host is missing"),
        ("scylla://db:cql", "port 'cql' is no number from 1 to 65535"),
        ("scylla://db:0", "port '0' is no number"),
        ("scylla://db:70000", "port '70000' is no number"),
        ("scylla://db:", "port '' is no number"),
        ("scylla://::1/ks", "a host is missing"),
        ("scylla://[::1/ks", "Invalid IPv6 URL"),
        ("scylla://db/Calls", "'Calls' is no keyspace name"),
        ("scylla://db/a/b", "'a/b' is no keyspace name"),
        ("scylla://db/" + "k" * 49, "is no keyspace name"),
        ("scylla://db/ks?dc=eu", "the only option is local_dc=NAME, not 'dc=eu'"),
        ("scylla://db/ks?local_dc=", "the only option is local_dc=NAME"),
        ("scylla://db/ks#x", "the only option is local_dc=NAME, not '#x'"),
    ],
)
def test_wrong_cql_url_is_named_with_an_example(url: str, message: str) -> None:
    with pytest.raises(StoreMisconfigured) as caught:
        cql_url(url)
    assert str(caught.value).startswith(f"store {url!r}: ")
    assert message in str(caught.value)
    assert "expected scylla://host1,host2:9042/voice_ai_ks?local_dc=dc1" in str(caught.value)


def test_password_in_a_url_is_refused_and_not_repeated() -> None:
    with pytest.raises(StoreMisconfigured, match="VOICELOG_CQL_PASSWORD") as caught:
        cql_url("scylla://admin:s3cret@db:9042/ks")
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("url", ["mysql://db", "calls.db", ""])
def test_store_of_an_unknown_kind_is_refused(url: str) -> None:
    with pytest.raises(StoreMisconfigured, match=r"expected sqlite:///path\.db or scylla://"):
        make_store(load({"store": url}, {})[0])
