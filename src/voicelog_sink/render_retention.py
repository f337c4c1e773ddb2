"""How long things are kept, for people."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from voicelog_sink.erasures import REFRESH_S
from voicelog_sink.render import NOTHING, Column, console, count, moment, one_line, print_line, print_table
from voicelog_sink.retention import KINDS, TEXT, Kept, Rule, Rules
from voicelog_sink.retention_apply import Applied
from voicelog_sink.retention_change import Change

DAY_MS = 86_400_000


def show(rules: Rules, found: Sequence[Kept], ttl_days: int, topics: dict[str, int] | str | None) -> None:
    """Print kinds, tables, and where it is known how long the topics keep their messages."""
    out = console(table=True)
    kinds = (Column("kind"), Column("days", right=True), Column("because", rank=1))
    rows = [_kind_cells(name, rules, ttl_days) for name in KINDS]
    print_table(out, (*kinds, Column("what it is", shrink=True, rank=2)), rows)
    out.print()
    columns = (
        Column("table"),
        Column("rows, days", right=True),
        Column("texts, days", right=True),
        Column("because", rank=1),
    )
    print_table(out, columns, [_table_cells(each) for each in found])
    if topics is not None:
        out.print()
        print_line(out, Text(one_line(_topics(topics)), "dim"))


def _kind_cells(name: str, rules: Rules, ttl_days: int) -> list[Text | str]:
    rule = rules.get(name)
    defaults = {TEXT: "as its row", "figures": str(ttl_days)}
    days = str(rule.days) if rule else defaults.get(name, str(KINDS[name].most_days))
    return [Text(name, "bold"), days, because(rule, "ttl_days" if name == "figures" else ""), KINDS[name].what]


def _table_cells(each: Kept) -> list[Text | str]:
    days = "for ever" if each.days is None else str(each.days)
    texts = NOTHING if each.text_days is None else str(each.text_days)
    rules = {rule.name: rule for rule in (each.rule, each.text_rule) if rule}
    why = ", ".join(f"the rule {one_line(name)}" for name in rules)
    return [Text(each.table.name, "bold"), days, texts, why or "default"]


def because(rule: Rule | None, setting: str = "") -> str:
    """Return who said so, and when."""
    if rule is None:
        return f"default (setting {setting})" if setting else "default"
    return f"{one_line(rule.changed_by or NOTHING)}, {moment(rule.changed_at)}"


def _topics(topics: dict[str, int] | str) -> str:
    if isinstance(topics, str):
        return f"The broker was not asked: {topics}"
    said = (f"{name} {'for ever' if ms < 0 else f'{ms / DAY_MS:g} days'}" for name, ms in sorted(topics.items()))
    return f"The broker's topics keep their messages: {', '.join(said) or 'there are none'}"


def sentence(made: Change) -> str:
    """Return what the change comes to, in one line."""
    parts = [_part(was, now) for was, now in zip(made.before, made.after, strict=True) if was.table.name in made.tables]
    title = f"{made.name}: {count(made.rule.days, 'day')}" if made.rule else f"{made.name}: as by default"
    return f"{title} ({'; '.join(filter(None, parts)) or 'nothing is kept for longer or shorter than before'})"


def _part(was: Kept, now: Kept) -> str:
    rows = "" if was.days == now.days else f"rows of {now.table.name} {was.days} -> {now.days} days"
    texts = (
        "" if was.text_days == now.text_days else f"texts of {now.table.name} {was.text_days} -> {now.text_days} days"
    )
    return ", ".join(filter(None, (rows, texts)))


def stored_already(made: Change, applied: Applied | None, *, writes_expiry: bool, dry_run: bool) -> str:
    """Return what becomes of what is stored already."""
    if applied is not None:
        return _applied(applied, dry_run=dry_run)
    known = f"Sinks that run know within {REFRESH_S:.0f} s"
    if not writes_expiry:
        return f"{known}, and {'take out' if made.takes_away else 'keep longer'} also what is stored already."
    latest = f": the last of it goes {made.latest_days} days after its event" if made.latest_days else ""
    return (
        f"{known}. What is stored already keeps the expiry that it was written with"
        f"{latest}; --apply has it go by the rule."
    )


def _applied(applied: Applied, *, dry_run: bool) -> str:
    verb = "would be " if dry_run else ""
    done = (("deleted", applied.rows), ("without their texts", applied.texts), ("written anew", applied.written))
    said = [
        f"{verb}{what}: {', '.join(f'{number:,} in {table}' for table, number in sorted(numbers.items()))}"
        for what, numbers in done
        if numbers
    ]
    return f"Rows {'; '.join(said)}" if said else "Nothing that is stored is over by it."
