"""The command line's options, made from the table of settings; a command never spells one out."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import click

from voicelog.errors import ConfigError
from voicelog.settings import BY_NAME, Setting, Settings, load, parse

STORE_SETTINGS = (
    "store", "start_timeout_ms", "cql_username", "cql_password", "cql_ca_file", "cql_certificate_file", "cql_key_file",
)  # fmt: skip
"""What a command needs that only reads the store."""

BROKER_SETTINGS = (
    "brokers", "topic_prefix", "security_protocol", "sasl_mechanism", "sasl_username", "sasl_password", "ssl_ca_file",
    "ssl_certificate_file", "ssl_key_file", "ssl_key_password", "kafka_config",
)  # fmt: skip
"""What a command needs to reach the broker."""

INIT_SETTINGS = ("topic_partitions", "topic_replication", "topic_retention_ms", "topic_compression", "cql_replication")
"""What only making topics and schema needs."""

LOOP_SETTINGS = (
    "group", "group_instance_id", "http", "batch_max_events", "batch_linger_ms", "drain_timeout_ms",
    "max_message_bytes", "ttl_days", "slow_turn_ms", "anomalies_every_ms", "log_format",
)  # fmt: skip
"""What the daemon's loop needs besides broker and store."""

Command = Callable[..., Any]


class FiniteRange(click.FloatRange):
    """A number in a range; neither `nan`, which no range keeps out, nor `inf`."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number; raises BadParameter with what was expected."""
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r}: expected a finite number", param, ctx)
        return number


_METAVARS = {"_brokers": "HOST:PORT", "_pairs": "NAME=VALUE"}


def with_settings(*names: str) -> Callable[[Command], Command]:
    """Give a command the options of these settings, which it must honour, and `settings` as first argument.

    What is on the command line wins over the environment. A wrong name or value in either raises ConfigError. A
    secret has no option, since every user of the machine can read a process's arguments: the environment alone
    gives it.
    """
    rows = [BY_NAME[name] for name in names]

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def with_loaded(**given: Any) -> Any:
            chosen = {row.name: given.pop(row.name) for row in rows if not row.secret}
            return command(load_strictly(chosen), **given)

        wrapped: Command = with_loaded
        for row in reversed(rows):
            wrapped = wrapped if row.secret else _option(row)(wrapped)
        return wrapped

    return decorate


def load_strictly(given: dict[str, str | None]) -> Settings:
    """Return the settings; raises ConfigError for the first thing that is wrong on the command line or outside."""
    for name, text in given.items():
        if text is not None:
            _parse_option(BY_NAME[name], text)
    settings, problems = load(given)
    if problems:
        raise ConfigError("; ".join(problems))
    return settings


def secrets_epilog(*names: str) -> str:
    """Return the sentence for a command's help that says which secrets the environment alone gives."""
    rows = [BY_NAME[name] for name in names]
    secrets = ", ".join(f"{row.env} ({row.help})" for row in rows if row.secret)
    return f"Only from the environment, since arguments can be seen by others: {secrets}." if secrets else ""


def flag(row: Setting) -> str:
    """Return the option's name, such as --topic-prefix."""
    return "--" + row.name.replace("_", "-")


def _option(row: Setting) -> Callable[[Command], Command]:
    return click.option(flag(row), row.name, type=str, default=None, metavar=_metavar(row), help=_help(row))


def _metavar(row: Setting) -> str:
    return row.unit.upper() or _METAVARS.get(row.parse.__name__, "TEXT")


def _help(row: Setting) -> str:
    default = f"; default: {row.default}" if row.default not in ("", {}) else ""
    return f"{row.help}  [env: {row.env}{default}]"


def _parse_option(row: Setting, text: str) -> None:
    try:
        parse(row.name, text)
    except ConfigError as exc:
        raise ConfigError(str(exc).replace(row.env, flag(row), 1)) from exc
