"""The settings: one table that feeds the environment, the command line and the documentation.

A setting `brokers` is `VOICELOG_BROKERS` in the environment, `--brokers` on the sink's command line and
`configure(brokers=...)` in the library. Nothing runs here: `load` turns strings into a frozen `Settings`.
"""

from __future__ import annotations

import difflib
import os
import re
import socket
import sys
from collections.abc import Callable, Mapping
from typing import Any

import attrs

from voicelog.errors import ConfigError

PREFIX = "VOICELOG_"
PURE_PYTHON = "VOICELOG_PURE_PYTHON"
NOT_SETTINGS = ("VOICELOG_TEST_", "VOICELOG_SESSION", PURE_PYTHON)
"""Names in the environment that begin like a setting and are none: the test suite's, a handed-over session, and what
chooses Python where there is an extension in C, at its import."""

_SECRET = re.compile(r"password|secret|token|\.key\.pem|oauthbearer\.config", re.IGNORECASE)
"""Names of librdkafka's whose values are not shown."""

CONTENT_KINDS: dict[str, str] = {
    "transcript": "what was heard",
    "prompt": "what a language model was asked",
    "response": "what it answered",
    "text": "what was spoken",
    "parameters": "an llm_request's parameters",
    "attributes": "whatever else was given, to any event: also to turns, sessions, metrics, logs, errors and health",
    "errors": "message and stack trace of an error, also of an attempt's; its type is sent all the same",
    "logs": "a log record's message; level and logger are sent all the same",
}
"""What capture_content names, each with its meaning."""

CONTENT_DEFAULT = frozenset(CONTENT_KINDS) - {"prompt"}
REDACTORS = ("phone", "email", "card")
"""The redactors that voicelog.redact brings, by the names that the setting `redact` takes."""
_REDACTOR = re.compile(rf"{'|'.join(REDACTORS)}|phone:[A-Z]{{2}}")


def runs_in_python(environ: Mapping[str, str] | None = None) -> bool:
    """Return whether VOICELOG_PURE_PYTHON chooses Python, by `environ` or this process's environment."""
    return (os.environ if environ is None else environ).get(PURE_PYTHON, "") not in ("", "0")


@attrs.frozen
class Setting:
    """One setting; `used_by` says whether the library, the sink or both read it."""

    name: str
    parse: Callable[[str], Any]
    default: Any
    unit: str
    help: str
    used_by: str = "both"
    secret: bool = False
    takes: Callable[[Any], Any] | None = None
    """Reads a value given in code that is no text; without it such a value is read as its text."""
    unread: Any = None
    """Stands for a value in the environment that can't be read, where the default would send what was to stay."""
    unread_so: str = "It is left out."
    """What follows from a value in the environment that can't be read."""
    check: Callable[[Any], None] | None = None
    """Raises ValueError or ImportError for a value given in code that can't work here."""

    @property
    def env(self) -> str:
        """The name in the environment."""
        return PREFIX + self.name.upper()

    @property
    def summary(self) -> str:
        """What it is, without the values that it may have: the help up to its first full stop, colon or semicolon."""
        return re.split("[.:;]", self.help, maxsplit=1)[0]

    @property
    def kind(self) -> str:
        """The type as the documentation calls it."""
        return self.parse.__name__.removeprefix("_").replace("str", "text")


class Problem(str):
    """What is wrong in the environment, in a sentence; `so` says what follows from it."""

    so: str

    def __new__(cls, sentence: str, so: str = "It is left out.") -> Problem:
        """Return the sentence as a text."""
        made = super().__new__(cls, sentence)
        made.so = so
        return made

    def told(self) -> str:
        """Return both sentences."""
        return f"{self}{'' if self.endswith('?') else '.'} {self.so}"


def _bool(text: str) -> bool:
    value = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    if text.strip().lower() not in value:
        message = "expected true or false"
        raise ValueError(message)
    return value[text.strip().lower()]


def _positive(text: str) -> int:
    number = text.strip()
    if not number.isdecimal() or int(number) == 0:
        message = "expected a whole number above 0"
        raise ValueError(message)
    return int(number)


def _count(text: str) -> int:
    number = text.strip()
    if not number.isdecimal():
        message = "expected a whole number from 0 on"
        raise ValueError(message)
    return int(number)


def _brokers(text: str) -> str:
    for part in text.split(","):
        host, _, port = part.strip().rpartition(":")
        if "/" in part or not host or not port.isdecimal() or not 0 < int(port) < 65536:
            message = "expected host:port, or several with commas, such as redpanda-0:9092,redpanda-1:9092"
            raise ValueError(message)
    return text


def _kinds(text: str) -> frozenset[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    off = {name[1:].strip() for name in names if name.startswith("-")}
    on = {name for name in names if not name.startswith("-")}
    if not (on - {"all", "none"}) | off <= CONTENT_KINDS.keys() or (len(on) > 1 and on & {"all", "none"}):
        message = f"expected all, none, or some of {', '.join(CONTENT_KINDS)}; with a minus before it, all but that one"
        raise ValueError(message)
    if on == {"none"} or not names:
        return frozenset()
    return frozenset(CONTENT_KINDS if on == {"all"} else on or CONTENT_DEFAULT) - off


def _share(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 1:
        message = "expected a number from 0 to 1"
        raise ValueError(message)
    return number


def _redactors(text: str) -> tuple[Any, ...]:
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    return _redactors_given(() if names == ("none",) else names)


def _redactors_given(value: Any) -> tuple[Any, ...]:
    given = tuple(value) if isinstance(value, (list, tuple, set, frozenset)) else (value,)
    for one in given:
        if not (_REDACTOR.fullmatch(one) if isinstance(one, str) else callable(one)):
            message = f"expected none, or some of {', '.join(REDACTORS)}; in code also functions from a text to a text"
            raise ValueError(message)
    return given


def _redactors_at_hand(given: tuple[Any, ...]) -> None:
    from voicelog.redact import named  # only where it is asked for: its library is an extra

    for one in given:
        if isinstance(one, str):
            named(one)


def withheld(_: str) -> None:
    """Stand for redactors that can't be read: as it gives no text, none is sent."""


def _prices_given(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else str(value)


def _pairs(text: str) -> dict[str, str]:
    pairs = [part.partition("=") for part in text.split(",") if part.strip()]
    if any(not equals or not name.strip() for name, equals, _ in pairs):
        message = "expected name=value, or several with commas, such as linger.ms=5,socket.keepalive.enable=true"
        raise ValueError(message)
    return {name.strip(): value.strip() for name, _, value in pairs}


SETTINGS: tuple[Setting, ...] = (
    Setting("brokers", _brokers, "127.0.0.1:9092", "", "Kafka bootstrap servers, host:port with commas between"),
    Setting("topic_prefix", str, "", "", "put before every topic's name"),
    Setting("enabled", _bool, True, "", "false turns the library off", "library"),
    Setting("service", str, "", "", "name of the program that measures; default: the program's file name", "library"),
    Setting("host", str, "", "", "name of the machine; default: its host name", "library"),
    Setting(
        "capture_content", _kinds, CONTENT_DEFAULT, "",
        f"which content is sent: all, none, or some of {', '.join(CONTENT_KINDS)}; -errors: the default without that "
        "kind. Where the environment's value can't be read, no content is sent", "library", unread=frozenset(),
        unread_so="Until it can be read, no content is sent.",
    ),
    Setting("redact", _redactors, (), "",
            "takes what is private out of every text before it is encoded: none, or some of phone, phone:US (numbers "
            "without +, as dialled there), email, card; in code also functions from a text to a text. Where the "
            "environment's value can't be read, no text is sent", "library", takes=_redactors_given,
            unread=(withheld,), unread_so="Until it can be read, no text is sent.", check=_redactors_at_hand),
    Setting("sample_rate", _share, 1.0, "share",
            "share of the calls that is kept, whole or not at all; calls with an error or a slow turn are always kept",
            "library"),
    Setting("sample_hold_max_bytes", _positive, 64 * 1024 * 1024, "bytes",
            "memory for calls of which it is not yet known whether they are kept; a call that does not fit is kept",
            "library"),
    Setting("slow_turn_ms", _positive, 2_000, "ms",
            "user_bot_latency_ms from which on a turn is slow: sampling keeps its call, the sink's summaries count it, "
            "`sessions --slow` lists it; how many of a call are slow stays as the sink counted them"),
    Setting("prices", str, "", "", "price table for cost_usd: a TOML or JSON file; in code also a dict", "library",
            takes=_prices_given),
    Setting("otel_spans", _bool, True, "",
            "open an OpenTelemetry span for each stage and turn when a tracer provider is set", "library"),
    Setting("health_interval_ms", _count, 10_000, "ms",
            "how often the process reports queue, drops, memory and event-loop lag; 0 turns it off", "library"),
    Setting("spool_dir", str, "", "",
            "directory that events go through on their way to the broker, so that they survive a full queue, a broker "
            "that is away and kill -9; empty: none", "library"),
    Setting("spool_max_bytes", _positive, 1024 * 1024 * 1024, "bytes",
            "most that the spool takes on disk; the newest events above it are dropped and counted", "library"),
    Setting("queue_max_messages", _positive, 100_000, "messages",
            "events that may wait in memory for the broker; the newest above it are dropped and counted", "library"),
    Setting("queue_max_bytes", _positive, 64 * 1024 * 1024, "bytes",
            "the same limit in bytes", "library"),
    Setting("delivery_timeout_ms", _positive, 300_000, "ms",
            "how long an event waits for the broker's acknowledgement before it is given up and counted", "library"),
    Setting("linger_ms", _count, 20, "ms", "how long the library gathers events into one request", "library"),
    Setting("flush_timeout_ms", _count, 5_000, "ms", "how long the program's exit waits for unsent events", "library"),
    Setting("stage_started_after_ms", _count, 10_000, "ms",
            "a stage that is open for longer is reported with stage_started; 0 turns it off", "library"),
    Setting("store", str, "sqlite:///voicelog.db", "",
            "where events are kept: sqlite:///path.db or scylla://host1,host2:9042/voice_ai_ks?local_dc=dc1", "sink"),
    Setting("group", str, "voicelog-sink", "", "consumer group of the sink's replicas", "sink"),
    Setting("http", str, "127.0.0.1:8080", "",
            "address of /health, /ready, /metrics; port 0 takes a free one; off: none", "sink"),
    Setting("start_timeout_ms", _count, 30_000, "ms",
            "how long broker and store are waited for at start before the sink gives up", "sink"),
    Setting("batch_max_events", _positive, 2_000, "events", "most events that are written at once", "sink"),
    Setting("batch_linger_ms", _count, 50, "ms", "how long the sink gathers events before it writes", "sink"),
    Setting("drain_timeout_ms", _count, 20_000, "ms",
            "how long the sink goes on after SIGTERM to store what it has taken; below Kubernetes' 30 s", "sink"),
    Setting("workers", _positive, 1, "processes",
            "processes of the sink on this machine, each a member of the group; with ports of HTTP one after another",
            "sink"),
    Setting("group_instance_id", str, "", "",
            "name of this replica that outlives a restart (static membership): its partitions wait for it", "sink"),
    Setting("anomalies_every_ms", _count, 300_000, "ms",
            "how often one replica compares the last hours with earlier days, for the gauges of anomalies in /metrics; "
            "0 turns it off", "sink"),
    Setting("max_message_bytes", _positive, 1024 * 1024, "bytes",
            "the library cuts the texts of a larger event; in the sink it goes to the dead letters as too_large"),
    Setting("topic_partitions", _positive, 12, "partitions", "partitions of each topic that init makes", "sink"),
    Setting("topic_replication", _count, 0, "replicas", "replicas of each topic; 0 leaves it to the broker", "sink"),
    Setting("topic_retention_ms", _positive, 7 * 24 * 3600 * 1000, "ms", "how long the topics keep events", "sink"),
    Setting("topic_compression", str, "zstd", "", "compression.type of the topics", "sink"),
    Setting("cql_replication", str, "1", "",
            "replication of the keyspace: a factor for local_dc, or dc1:3,dc2:3", "sink"),
    Setting("ttl_days", _positive, 90, "days", "how long events are kept, counted from the event", "sink"),
    Setting("log_format", str, "text", "", "text or json", "sink"),
    Setting("security_protocol", str, "PLAINTEXT", "", "PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL"),
    Setting("sasl_mechanism", str, "", "", "PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER"),
    Setting("sasl_username", str, "", "", "user at the broker"),
    Setting("sasl_password", str, "", "", "password at the broker", secret=True),
    Setting("ssl_ca_file", str, "", "", "certificate authority of the brokers, PEM"),
    Setting("ssl_certificate_file", str, "", "", "own certificate for the brokers, PEM"),
    Setting("ssl_key_file", str, "", "", "own key for the brokers, PEM"),
    Setting("ssl_key_password", str, "", "", "password of that key", secret=True),
    Setting("cql_username", str, "", "", "user at the store", "sink"),
    Setting("cql_password", str, "", "", "password at the store", "sink", secret=True),
    Setting("cql_ca_file", str, "", "", "certificate authority of the store, PEM; turns TLS on", "sink"),
    Setting("cql_certificate_file", str, "", "", "own certificate for the store, PEM", "sink"),
    Setting("cql_key_file", str, "", "", "own key for the store, PEM", "sink"),
    Setting("kafka_config", _pairs, {}, "", "any settings of librdkafka: name=value with commas between"),
)  # fmt: skip

BY_NAME: dict[str, Setting] = {row.name: row for row in SETTINGS}
_ENVS = frozenset(row.env for row in SETTINGS)


@attrs.frozen
class Settings:
    """The values, one attribute a setting; its repr masks secrets."""

    values: Mapping[str, Any]

    def __getattr__(self, name: str) -> Any:
        """Return a setting's value."""
        try:
            return object.__getattribute__(self, "values")[name]
        except KeyError:
            raise AttributeError(name) from None

    def __repr__(self) -> str:
        """Show every value, secrets as ***."""
        return f"Settings({', '.join(f'{name}={value!r}' for name, value in self.masked().items())})"

    def masked(self) -> dict[str, Any]:
        """Return the values with every secret that is set as ***, those within kafka_config too."""
        shown = {n: "***" if BY_NAME[n].secret and v else v for n, v in self.values.items()}
        more = self.values.get("kafka_config")
        if isinstance(more, Mapping):
            shown["kafka_config"] = {n: "***" if _SECRET.search(n) else v for n, v in more.items()}
        return shown

    def given(self) -> dict[str, Any]:
        """Return the values that are not the default."""
        default = defaults()
        return {name: value for name, value in self.values.items() if value != default[name]}

    def environ(self) -> dict[str, str]:
        """Return this process's environment as another process of this program needs it to have these settings."""
        other = {name: text for name, text in os.environ.items() if name not in _ENVS}
        return other | environment(self.given())

    def kafka(self) -> dict[str, Any]:
        """Return the librdkafka settings that producer, consumer and admin client share."""
        names = {
            "security.protocol": self.security_protocol, "sasl.mechanism": self.sasl_mechanism,
            "sasl.username": self.sasl_username, "sasl.password": self.sasl_password,
            "ssl.ca.location": self.ssl_ca_file, "ssl.certificate.location": self.ssl_certificate_file,
            "ssl.key.location": self.ssl_key_file, "ssl.key.password": self.ssl_key_password,
        }  # fmt: skip
        given = {name: value for name, value in names.items() if value}
        return {"bootstrap.servers": self.brokers, **given, **self.kafka_config}


def load(given: Mapping[str, Any], environ: Mapping[str, str] | None = None) -> tuple[Settings, list[Problem]]:
    """Return the settings and what is wrong in the environment.

    A value in `given` wins over the environment's, which wins over the default. A wrong name or value in `given`
    raises ConfigError; one in the environment is left out and told, so that a program whose environment is wrong
    runs on.
    """
    values = defaults()
    problems = []
    for name, text in from_environment(os.environ if environ is None else environ).items():
        try:
            values[name] = parse(name, text)
        except ConfigError as exc:
            row = BY_NAME.get(name)
            problems.append(Problem(str(exc), row.unread_so) if row else Problem(str(exc)))
            if row and row.unread is not None:
                values[name] = row.unread
    for name, value in given.items():
        if value is not None:
            values[name] = _checked(name, parse(name, value))
    return Settings(values), problems


def refuse_the_sinks(given: Mapping[str, Any]) -> None:
    """Raise ConfigError for a setting that is given in code and that only the sink reads."""
    for name in given:
        if name in BY_NAME and BY_NAME[name].used_by == "sink":
            message = f"{name} is a setting of voicelog-sink, and none of the library: set {BY_NAME[name].env} there"
            raise ConfigError(message)


def _checked(name: str, value: Any) -> Any:
    check = BY_NAME[name].check
    try:
        if check is not None:
            check(value)
    except (ValueError, ImportError) as exc:
        message = f"{BY_NAME[name].env} is {value!r}: {exc}"
        raise ConfigError(message) from exc
    return value


def defaults() -> dict[str, Any]:
    """Return every setting's default; service and host are found out."""
    values = {row.name: row.default for row in SETTINGS}
    program = os.path.splitext(os.path.basename(sys.argv[0] if sys.argv else ""))[0]
    return {**values, "service": program or "python", "host": socket.gethostname()}


def from_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return what the environment sets, by the setting's name; also names that are no setting."""
    return {
        name.removeprefix(PREFIX).lower(): text
        for name, text in environ.items()
        if name.startswith(PREFIX) and not name.startswith(NOT_SETTINGS) and text
    }


def environment(values: Mapping[str, Any]) -> dict[str, str]:
    """Return the variables that give another process these settings."""
    return {BY_NAME[name].env: value if isinstance(value, str) else _as_text(value) for name, value in values.items()}


def parse(name: str, value: Any) -> Any:
    """Return the value of the setting `name`; raises ConfigError that says value, expectation and remedy."""
    row = BY_NAME.get(name)
    if row is None:
        near = difflib.get_close_matches(name, BY_NAME, n=1)
        hint = f"did you mean {near[0]} ({BY_NAME[near[0]].env})?" if near else f"known are: {', '.join(BY_NAME)}"
        message = f"{name!r} ({PREFIX}{name.upper()}) is no setting of voicelog: {hint}"
        raise ConfigError(message)
    if row.parse is _pairs and isinstance(value, Mapping):
        return {str(k): v for k, v in value.items()}  # given in code: a value may hold commas, or be no text
    text = value if isinstance(value, str) else _as_text(value)
    try:
        return row.takes(value) if row.takes is not None and not isinstance(value, str) else row.parse(text)
    except ValueError as exc:
        shown = "***" if row.secret or _SECRET.search(text) else repr(value)
        message = f"{row.env} is {shown}: {exc} ({row.summary})"
        raise ConfigError(message) from exc


def _as_text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ",".join(f"{k}={v}" for k, v in value.items())
    if isinstance(value, (list, tuple, set, frozenset)):
        return ",".join(str(v) for v in value) or "none"
    return str(value)
