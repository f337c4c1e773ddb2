"""The price table: the user's own, a TOML or JSON file or a dict, and the `cost_usd` that it gives a stage.

    version = "2026-11-01"

    [[prices]]
    provider = "openai"
    model = "gpt-4o-mini*"
    usd_per_million = { input_tokens = 0.15, cache_read_input_tokens = 0.075, output_tokens = 0.60 }

The figures are examples; voicelog brings none. A cost is absent where a price that it needs is: never 0, never a part.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Annotated, Any

import attrs
import msgspec

from voicelog.clean import shown, text
from voicelog.counters import Counters
from voicelog.errors import ConfigError
from voicelog.settings import Problem, Settings
from voicelog.tariff import Tariff
from voicelog.usage import USAGE

MILLION = 1_000_000
MAX_USD = 1_000_000
"""A single price above it is a mistake in the table."""
MAX_FOUND = 1000
PRICED_BY_MILLION = tuple(row.name for row in USAGE if row.unit != "seconds")

_Text = Annotated[str, msgspec.Meta(min_length=1)]


class _Table(msgspec.Struct, forbid_unknown_fields=True):
    version: _Text
    prices: Annotated[list[Any], msgspec.Meta(min_length=1)]


class _Entry(msgspec.Struct, forbid_unknown_fields=True):
    provider: _Text
    model: _Text = "*"
    usd_per_million: dict[str, Any] = {}
    usd_per_audio_minute: Any = None
    usd_per_request: Any = None


@attrs.frozen(repr=False)
class Prices:
    """A price table. Safe from any thread; `apply` never blocks or raises."""

    version: str
    tariffs: tuple[Tariff, ...]
    counters: Counters | None = attrs.field(default=None, eq=False)
    _found: dict[tuple[str, str], Tariff | None] = attrs.field(factory=dict, eq=False, init=False)

    @classmethod
    def load(cls, value: Any, counters: Counters | None = None) -> Prices | None:
        """Return the table that the setting `prices` names, or None where it names none. Reads a file.

        Raises ConfigError that says which entry, which value and what was expected. What has no price is counted in
        `counters`.
        """
        if value is None or value == "":
            return None
        if isinstance(value, Prices):
            return attrs.evolve(value, counters=counters)
        raw, where = (value, "prices") if isinstance(value, Mapping) else (_read(value), f"prices ({value})")
        table = _convert(raw, _Table, where)
        tariffs = tuple(_tariff(entry, f"{where}, entry {n}") for n, entry in enumerate(table.prices, 1))
        _check_for_doubles(tariffs, where)
        return cls(table.version, tariffs, counters)

    def __repr__(self) -> str:
        """Show version and size: the prices themselves may be a secret of two parties."""
        return f"Prices(version={self.version!r}, {len(self.tariffs)} entries)"

    def tariff(self, provider: str, model: str) -> Tariff | None:
        """Return the tariff for a model: its own, or else the one with the longest beginning of its name."""
        key = (provider, model)
        if key not in self._found:
            fitting = [t for t in self.tariffs if t.provider == provider and t.matches(model)]
            best = max(fitting, key=lambda t: (not t.model.endswith("*"), len(t.model)), default=None)
            if len(self._found) >= MAX_FOUND:
                return best
            self._found[key] = best
        return self._found[key]

    def apply(self, fields: dict[str, Any]) -> None:
        """Set cost_usd and price_version on the fields of a finished stage's event, where they can be known.

        A cost_usd that the user gave stays. Without usage there is no cost. Before texts are left out or redacted.
        """
        if fields.get("cost_usd") is not None:
            return
        provider, model = fields.get("provider") or "", fields.get("model") or ""
        tariff = self.tariff(provider, model)
        if tariff is None:
            if fields.get("usage") or _has_length(fields):
                self._unpriced(provider, model, "the price table has no entry for it")
            return
        used = _used(fields, tariff)
        if not used and (tariff.units or fields.get("status") != "ok"):
            return
        cost = tariff.cost(used)
        if isinstance(cost, str):
            self._unpriced(provider, model, cost)
        else:
            fields["cost_usd"], fields["price_version"] = cost, self.version

    def _unpriced(self, provider: str, model: str, why: str) -> None:
        if self.counters is not None:
            label, table = text(f"{provider}/{model}", 200), f"price table {shown(self.version)}"
            who = f"provider {shown(provider)}, model {shown(model)}" if provider else "a stage that names no provider"
            self.counters.add("unpriced", label)
            self.counters.warn_once("unpriced", f"{label} {why}", f"no cost_usd for {who}: {why} ({table})")


def with_prices(settings: Settings, problems: list[Problem], *, in_code: bool) -> tuple[Settings, list[Problem]]:
    """Return the settings with the price table itself in place of its path, and the problems. Reads the file.

    A wrong table raises ConfigError where it is named in code; one that the environment names is left out and told.
    """
    try:
        table = Prices.load(settings.prices)
    except ConfigError as exc:
        if in_code:
            raise
        table, problems = None, [*problems, Problem(f"VOICELOG_PRICES: {exc}", "No cost is computed.")]
    return attrs.evolve(settings, values={**settings.values, "prices": table or ""}), problems


def _has_length(fields: Mapping[str, Any]) -> bool:
    return any(fields.get(name) is not None for name in ("audio_ms", "characters", "text"))


def _used(fields: Mapping[str, Any], tariff: Tariff) -> Mapping[str, Any]:
    """Return the usage, and what it lacks from the event's own fields; not for a failure, which may cost nothing."""
    used: Mapping[str, Any] = fields.get("usage") or {}
    if fields.get("status") == "error" or fields.get("is_final") is False:  # an interim result's audio comes again
        return used
    if "characters" in tariff.units and "characters_count" not in used:
        spoken, characters = fields.get("text"), fields.get("characters")
        characters = len(spoken) if characters is None and isinstance(spoken, str) else characters
        used = used if characters is None else {**used, "characters_count": characters}
    if "seconds" in tariff.units and "audio_seconds" not in used:
        audio_ms = fields.get("audio_ms")
        used = used if audio_ms is None or audio_ms < 0 else {**used, "audio_seconds": audio_ms / 1000}
    return used


def _read(path: Any) -> Any:
    name = str(path)
    loads = {".toml": _toml, ".json": _json}.get(os.path.splitext(name)[1].lower())
    if loads is None:
        message = f"prices is {name!r}: expected the path of a .toml or .json file, or in code a dict"
        raise ConfigError(message)
    try:
        with open(name, encoding="utf-8") as file:
            return loads(file.read())
    except OSError as exc:
        message = f"prices is {name!r}: the file {_absolute(name)} can't be read: {exc.strerror or exc}"
        raise ConfigError(message) from exc
    except (ValueError, RecursionError) as exc:
        message = f"prices is {name!r}: the file can't be read: {exc}"
        raise ConfigError(message) from exc


def _absolute(name: str) -> str:
    try:
        return os.path.abspath(name)
    except OSError:  # the working directory is gone
        return name


def _toml(source: str) -> Any:
    return tomllib.loads(source, parse_float=Decimal)


def _json(source: str) -> Any:
    return json.loads(source, parse_float=Decimal)


def _convert(raw: Any, kind: Any, where: str) -> Any:
    try:
        return msgspec.convert(raw, kind)
    except msgspec.ValidationError as exc:
        message = f"{where} is {shown(raw)}: {exc}; expected are {', '.join(kind.__struct_fields__)}"
        raise ConfigError(message) from exc


def _tariff(raw: Any, where: str) -> Tariff:
    entry = _convert(raw, _Entry, where)
    where = f"{where} ({entry.provider} {entry.model})"
    if "*" in entry.model[:-1]:
        message = f"{where}: model is {entry.model!r}: expected a name, or the beginning of one with * at its end"
        raise ConfigError(message)
    prices = {name: _price(value, name, where) / MILLION for name, value in entry.usd_per_million.items()}
    for name in prices.keys() - set(PRICED_BY_MILLION):
        message = f"{where}: usd_per_million.{name} is no usage: expected some of {', '.join(PRICED_BY_MILLION)}"
        raise ConfigError(message)
    if entry.usd_per_audio_minute is not None:
        prices["audio_seconds"] = _price(entry.usd_per_audio_minute, "usd_per_audio_minute", where) / 60
    request = entry.usd_per_request
    per_request = _price(request, "usd_per_request", where) if request is not None else Fraction(0)
    if not prices and request is None:
        message = f"{where} has no price: expected usd_per_million, usd_per_audio_minute or usd_per_request"
        raise ConfigError(message)
    return Tariff(entry.provider, entry.model, prices, per_request)


def _price(value: Any, name: str, where: str) -> Fraction:
    is_number = isinstance(value, (int, float, Decimal)) and not isinstance(value, bool)
    price = Decimal(str(value)) if is_number else Decimal("NaN")
    if not price.is_finite() or not 0 <= price <= MAX_USD:
        message = f"{where}: the price {name} is {shown(value)}: expected US dollars, a number from 0 to {MAX_USD}"
        raise ConfigError(message)
    return Fraction(price)


def _check_for_doubles(tariffs: tuple[Tariff, ...], where: str) -> None:
    seen: dict[tuple[str, str], int] = {}
    for n, tariff in enumerate(tariffs, 1):
        first = seen.setdefault((tariff.provider, tariff.model), n)
        if first != n:
            message = f"{where}: entries {first} and {n} are both for {tariff.provider} {tariff.model}: expected one"
            raise ConfigError(message)
