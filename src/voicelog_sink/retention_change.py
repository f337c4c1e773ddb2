"""What another rule changes, and what is to be said of it before anything is lost. Pure."""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from voicelog_sink.retention import FOLLOWERS, KINDS, TEXT, Kept, Rule, Rules, kept
from voicelog_sink.stores.cql_ddl import window_days
from voicelog_sink.tables import Life

MOST_WINDOWS = 50
"""Of a table that is cut into time windows: with more, a query has to look into too many files."""


@attrs.frozen
class Change:
    """A rule that is set, or with `rule` None taken back: how long things are kept before it and after it."""

    name: str
    rule: Rule | None
    before: tuple[Kept, ...]
    after: tuple[Kept, ...]

    @property
    def tables(self) -> tuple[str, ...]:
        """The tables that a rule of this name is about."""
        if self.name in KINDS:
            return KINDS[self.name].tables
        return (self.name, *(follower for follower, (leader, _) in FOLLOWERS.items() if leader == self.name))

    @property
    def texts_alone(self) -> bool:
        """Whether it is about texts and not about their rows."""
        return self.name == TEXT

    @property
    def takes_away(self) -> bool:
        """Whether something goes sooner than before."""
        return any(_days(now) < _days(was) for was, now in self._pairs())

    @property
    def changes_something(self) -> bool:
        """Whether something goes sooner or later than before."""
        return any(self._pairs())

    @property
    def latest_days(self) -> int:
        """After how many days the last of what was stored before is gone, where it keeps its expiry."""
        return max((max(_days(was)) for was, _ in self._pairs()), default=0)

    def _pairs(self) -> Iterator[tuple[Kept, Kept]]:
        for was, now in zip(self.before, self.after, strict=True):
            if _days(was) != _days(now):
                yield was, now

    def warnings(self, ttl_days: int, *, in_windows: bool) -> list[str]:
        """Return what is odd about it, a sentence each; `in_windows` is for a store that is cut into time windows."""
        found = [each for each in self.after if each.table.name in self.tables]
        sooner = [each for each in found if self.texts_alone and self.rule and (each.days or 0) < self.rule.days]
        said = [
            f"the rows of {each.table.name} go after {each.days} days, and their texts with them" for each in sooner
        ]
        return said + (self._too_many_windows(found, ttl_days) if in_windows and not self.texts_alone else [])

    def _too_many_windows(self, found: list[Kept], ttl_days: int) -> list[str]:
        length = window_days(ttl_days)
        return [
            f"{each.table.name} has time windows of {length} days, {-(-each.days // length)} of them for {each.days} "
            f"days: at most {MOST_WINDOWS} are good; set VOICELOG_TTL_DAYS={each.days} for every process and run "
            "voicelog-sink init --only store"
            for each in found
            if each.days and each.table.life is Life.APPENDED and each.days > length * MOST_WINDOWS
        ]


def change(name: str, rule: Rule | None, rules: Rules, ttl_days: int) -> Change:
    """Return what it changes when `rule` takes the place of the one of that name."""
    others = {each.name: each for each in rules.values() if each.name != name}
    after = others | ({name: rule} if rule else {})
    return Change(name, rule, tuple(kept(rules, ttl_days)), tuple(kept(after, ttl_days)))


def _days(each: Kept) -> tuple[int, int]:
    days = each.days or 0
    return days, days if each.text_days is None else each.text_days
