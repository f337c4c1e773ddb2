"""Which calls a list shows. Pure."""

from __future__ import annotations

import attrs

from voicelog_sink.rows import to_json
from voicelog_sink.stores.query import AT_LEAST, EQUAL, HAS, Condition
from voicelog_sink.summary import Summary


@attrs.frozen(kw_only=True)
class Wanted:
    """Those for which everything that is set holds. Nothing set means every call.

    An empty name wants calls without one: of no service, with no stage of a provider. `user` is whose call it is,
    whole. `slow_ms` wants a turn with at least that user_bot_latency_ms, `failed` an error, `interrupted` a turn in
    which the user spoke into the bot's speech. `text` is looked for in the call's texts, whatever the case, and in its
    summary's: it costs reading the events of each call for which the rest holds.
    """

    service: str | None = None
    provider: str | None = None
    model: str | None = None
    variant: str | None = None
    user: str | None = None
    slow_ms: float | None = None
    failed: bool = False
    interrupted: bool = False
    text: str | None = None

    def fits(self, call: Summary) -> bool:
        """Say whether all holds but `text`."""
        return (
            _is(call.service, self.service)
            and _is(call.variant, self.variant)
            and _is(call.user_id, self.user)
            and _is_among(call.providers, self.provider)
            and _is_among(call.models, self.model)
            and (self.slow_ms is None or _reaches(call.user_bot_latency_max_ms, self.slow_ms))
            and (not self.failed or call.errors > 0)
            and (not self.interrupted or call.interruptions > 0)
        )

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """What a store can be asked of a call's row, `user` and `text` not; they hold for every call that `fits`.

        They may hold for others too: a name with quotes in it looks in a column of names as if it were two, and no
        store can be asked for what is absent.
        """
        asked = (
            ("service", EQUAL, self.service or None),
            ("variant", EQUAL, self.variant or None),
            ("user_bot_latency_max_ms", AT_LEAST, self.slow_ms),
            ("errors", AT_LEAST, 1 if self.failed else None),
            ("interruptions", AT_LEAST, 1 if self.interrupted else None),
            ("providers", HAS, to_json(self.provider) if self.provider else None),
            ("models", HAS, to_json(self.model) if self.model else None),
        )
        return tuple(condition for condition in asked if condition[2] is not None)


EVERY_CALL = Wanted()


def _is(name: str | None, wanted: str | None) -> bool:
    return wanted is None or (name or "") == wanted


def _is_among(names: tuple[str, ...], wanted: str | None) -> bool:
    return wanted is None or (wanted in names if wanted else not names)


def _reaches(value: float | None, least: float) -> bool:
    return value is not None and value >= least
