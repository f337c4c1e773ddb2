"""The stores' URLs: what they may say, and the sentence for each that says something else. Pure."""

from __future__ import annotations

import re
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

import attrs

from voicelog_sink.stores.base import StoreMisconfigured

CQL_PORT = 9042
KEYSPACE = "voice_ai_ks"
SQLITE_EXAMPLE = "sqlite:///voicelog.db (relative) or sqlite:////var/lib/voicelog/voicelog.db (absolute)"
CQL_EXAMPLE = "scylla://host1,host2:9042/voice_ai_ks?local_dc=dc1"
_KEYSPACE_NAME = re.compile(r"[a-z][a-z0-9_]{0,47}")


@attrs.frozen
class CqlUrl:
    """Where a CQL database is; `local_dc` None is found out from the contact point."""

    hosts: tuple[tuple[str, int], ...]
    keyspace: str = KEYSPACE
    local_dc: str | None = None


def sqlite_path(url: str) -> str:
    """Return the file that sqlite:///path names; raises StoreMisconfigured."""
    parts = urlsplit(url)
    path = unquote(parts.path).removeprefix("/")
    if parts.scheme != "sqlite" or parts.netloc or not path or path.endswith("/"):
        raise _wrong(url, "it names no file", SQLITE_EXAMPLE)
    if parts.query or parts.fragment:
        raise _wrong(url, f"unknown option {parts.query or parts.fragment!r}", SQLITE_EXAMPLE)
    return path


def cql_url(url: str) -> CqlUrl:
    """Return what scylla://… says; raises StoreMisconfigured with what is wrong and an example."""
    try:
        parts = urlsplit(url)
    except ValueError as exc:
        raise _wrong(url, str(exc), CQL_EXAMPLE) from exc
    if "@" in parts.netloc:
        what = "user and password do not belong there"
        raise _wrong(_without_login(parts), what, f"{CQL_EXAMPLE} with VOICELOG_CQL_USERNAME and VOICELOG_CQL_PASSWORD")
    keyspace = unquote(parts.path).strip("/") or KEYSPACE
    if not _KEYSPACE_NAME.fullmatch(keyspace):
        what = f"{keyspace!r} is no keyspace name (a letter, then up to 47 of a-z, 0-9 and _)"
        raise _wrong(url, what, CQL_EXAMPLE)
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    local_dc = options.pop("local_dc", None)
    if options or local_dc == "" or parts.fragment:
        what = f"the only option is local_dc=NAME, not {parts.query or '#' + parts.fragment!r}"
        raise _wrong(url, what, CQL_EXAMPLE)
    return CqlUrl(_hosts(url, parts.netloc), keyspace, local_dc)


def _hosts(url: str, netloc: str) -> tuple[tuple[str, int], ...]:
    """Return (host, port) pairs; a host without a port takes the last one's, as in host1,host2:9042."""
    pairs = [_host(url, part.strip()) for part in netloc.split(",")]
    shared = pairs[-1][1] or CQL_PORT
    return tuple((host, port or shared) for host, port in pairs)


def _host(url: str, part: str) -> tuple[str, int | None]:
    match = re.fullmatch(r"(\[[^\]]+\]|[^:\[\]]*)(?::(.*))?", part)
    host, port = match.groups() if match else ("", None)
    if not host:
        raise _wrong(url, "a host is missing" if match else f"{part!r} is no host:port", CQL_EXAMPLE)
    if port is None:
        return host.strip("[]"), None
    if not port.isdecimal() or not 0 < int(port) < 65536:
        raise _wrong(url, f"port {port!r} is no number from 1 to 65535", CQL_EXAMPLE)
    return host.strip("[]"), int(port)


def _without_login(parts: SplitResult) -> str:
    return parts._replace(netloc="***@" + parts.netloc.rpartition("@")[2]).geturl()


def _wrong(url: str, what: str, example: str) -> StoreMisconfigured:
    return StoreMisconfigured(f"store {url!r}: {what}; expected {example}; set VOICELOG_STORE or --store")
