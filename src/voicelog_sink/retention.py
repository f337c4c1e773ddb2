"""How long what is stored is kept: rules in the store, which every sink and command goes by.

A rule is for a table, or for a kind of data; the table's own goes before its kind's, and without either the default
holds: the setting ttl_days for what is appended, tables.py for what is rewritten.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping

import attrs

from voicelog_sink.stores.base import Row, Store, Values
from voicelog_sink.stores.lifetime import DAY_MS, Lifetimes
from voicelog_sink.tables import (
    METRIC_NAMES,
    METRIC_ROLLUPS,
    RETENTION,
    SESSION_SUMMARIES,
    SESSIONS_BY_DAY,
    TABLES,
    Life,
    Table,
)

log = logging.getLogger(__name__)

KIND, TABLE = "kind", "table"
"""A rule's scope."""
TEXT = "text"
MOST_DAYS = 3_650
"""Ten years: before Cassandra 5 nothing can expire after January 2038, and such a row would be refused."""
DERIVED_DAYS = 400
"""Most days of summaries and rollups: nothing that reads them looks further back."""


@attrs.frozen
class Kind:
    """Something that rules can be made for as a whole: what it is, in which tables, and for how long at most."""

    name: str
    what: str
    tables: tuple[str, ...]
    most_days: int


def _appended() -> tuple[str, ...]:
    return tuple(name for name, table in TABLES.items() if table.life is Life.APPENDED)


KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind(TEXT, "what was said or written: the columns of text, in rows that stay",
             tuple(name for name, table in TABLES.items() if table.texts), MOST_DAYS),
        Kind("figures", "events with their times, durations, counts and costs: the rows themselves", _appended(),
             MOST_DAYS),
        Kind("summaries", "one row a call, and the list of calls", (SESSION_SUMMARIES.name, SESSIONS_BY_DAY.name),
             DERIVED_DAYS),
        Kind("rollups", "percentiles by minute, hour and day", (METRIC_ROLLUPS.name, METRIC_NAMES.name), DERIVED_DAYS),
    )
}  # fmt: skip
"""The kinds of data; what --help, the documentation and the command say of them."""

FOLLOWERS: dict[str, tuple[str, int]] = {
    SESSIONS_BY_DAY.name: (SESSION_SUMMARIES.name, 0),
    METRIC_NAMES.name: (METRIC_ROLLUPS.name, 31),
}
"""Tables that have no rule of their own: whose they go by, and days more (a month's names stand at its start)."""

RULED = tuple(name for kind in KINDS.values() if kind.name != TEXT for name in kind.tables if name not in FOLLOWERS)
"""Tables that a rule can be made for."""


@attrs.frozen
class Rule:
    """How many days a kind or table is kept, since when (epoch milliseconds), and who said so."""

    scope: str
    name: str
    days: int
    changed_at: int | None = None
    changed_by: str | None = None

    @property
    def row(self) -> Row:
        """The row that says so."""
        return Row(RETENTION.name, attrs.asdict(self))

    @property
    def key(self) -> Values:
        """The key of that row."""
        return {"scope": self.scope, "name": self.name}


Rules = Mapping[str, Rule]
"""Rules by the name of their kind or table."""


@attrs.frozen
class Kept:
    """How long a table is kept, and the texts in it: `rule` says why, None by default; days None for ever."""

    table: Table
    days: int | None
    rule: Rule | None
    text_days: int | None = None
    text_rule: Rule | None = None


def scope_of(name: str) -> str:
    """Return whether it is a kind or a table; raises ValueError for neither, and for a table that follows another."""
    if name in KINDS:
        return KIND
    if name in RULED:
        return TABLE
    expected = f"expected a kind ({', '.join(KINDS)}) or a table ({', '.join(RULED)})"
    if name in FOLLOWERS:
        message = f"{name} is kept as {FOLLOWERS[name][0]} is: set that one"
    elif name in TABLES:
        message = f"the rows of {name} do not expire: {expected}"
    else:
        message = f"{name!r} is neither a kind nor a table: {expected}"
    raise ValueError(message)


def most_days(name: str) -> int:
    """Return how many days a rule of that name may have at most."""
    return KINDS[name].most_days if name in KINDS else _kind_of(name).most_days


def read_rules(store: Store) -> dict[str, Rule]:
    """Return the rules that the store has. Blocks while it works; raises StoreError as it does.

    One that this version does not know, or that makes no sense, is left out with a warning.
    """
    rows = store.select(RETENTION.name, [{"scope": scope} for scope in (KIND, TABLE)])
    return {rule.name: rule for rule in _sound(Rule(**row) for row in rows)}


def _sound(rules: Iterable[Rule]) -> Iterator[Rule]:
    for rule in rules:
        known = rule.name in (KINDS if rule.scope == KIND else RULED)
        if known and isinstance(rule.days, int) and 1 <= rule.days <= most_days(rule.name):
            yield rule
        else:
            log.warning("the rule %s %s, %s days, is not known and has no effect", rule.scope, rule.name, rule.days)


def kept(rules: Rules, ttl_days: int) -> list[Kept]:
    """Return how long each table and its texts are kept by these rules. Pure."""
    return [_kept(table, rules, ttl_days) for table in TABLES.values()]


def _kept(table: Table, rules: Rules, ttl_days: int) -> Kept:
    leader, more = FOLLOWERS.get(table.name, (table.name, 0))
    rule = rules.get(leader) or (rules.get(_kind_of(leader).name) if leader in RULED else None)
    days = rule.days + more if rule else ttl_days if table.life is Life.APPENDED else table.lifetime_days
    if not table.texts or days is None:
        return Kept(table, days, rule)
    text = rules.get(TEXT)
    return Kept(table, days, rule, min(days, text.days) if text else days, text or rule)


def _kind_of(table: str) -> Kind:
    return next(kind for kind in KINDS.values() if kind.name != TEXT and table in kind.tables)


def lifetimes(rules: Rules, ttl_days: int) -> Lifetimes:
    """Return the rules as the stores go by them. Pure."""
    return lifetimes_of(kept(rules, ttl_days))


def lifetimes_of(found: Iterable[Kept]) -> Lifetimes:
    """Return how long tables are kept as the stores go by it. Pure."""
    found = list(found)
    rows_ms = {each.table.name: each.days * DAY_MS for each in found if each.days is not None}
    texts_ms = {each.table.name: each.text_days * DAY_MS for each in found if each.text_days is not None}
    return Lifetimes(rows_ms, {name: ms for name, ms in texts_ms.items() if ms < rows_ms[name]})


class Retention:
    """The rules as they were last read. `load` is for the thread with the store, `lifetimes` for any."""

    def __init__(self, ttl_days: int) -> None:
        """Begin with the defaults; `ttl_days` is what the setting says."""
        self._ttl_days = ttl_days
        self.lifetimes = Lifetimes.by_default(ttl_days)

    def load(self, store: Store) -> None:
        """Read the rules anew and have the store write by them.

        Blocks while the store works; raises StoreError as it does, and nothing changes then.
        """
        found = lifetimes(read_rules(store), self._ttl_days)
        if found != self.lifetimes:
            log.info("how long things are kept has changed: %s", sentence(found))
            self.lifetimes = found
        store.keep_for(found)


def sentence(found: Lifetimes) -> str:
    """Return the lifetimes in one line."""
    rows = (f"{name} {ms // DAY_MS} days" for name, ms in found.rows_ms.items())
    texts = (f"texts of {name} {ms // DAY_MS} days" for name, ms in found.texts_ms.items())
    return ", ".join((*rows, *texts))
