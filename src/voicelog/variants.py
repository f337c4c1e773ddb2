"""Choosing a variant of an A/B test: the same for a key in every process and version, and nothing to remember."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

from voicelog.clean import shown, text
from voicelog.client import state
from voicelog.context import session_var
from voicelog.counters import Counters
from voicelog.fields import fit

MAX_KEY_CHARS = 1_000_000
_BITS = 52
"""Of the hash, so that neither 0 nor 1 comes out when it is taken for a share."""
_when_off = Counters()
"""Says what is wrong while voicelog is off, since the choice is made all the same."""


def choose_variant(name: str, weights: Mapping[str, float], *, key: Any = None) -> str:
    """Choose a variant of the test `name` for `key`: `choose_variant("voice", {"a": 1, "b": 1}, key=session_id)`.

    Weights are numbers from 0 on; their ratio counts, and their order does not. The same name, weights and key give
    the same variant everywhere and always. When a weight grows, keys move only to that variant, and no more than have
    to. Without a key the current session's id is taken; outside of a session it is a random choice, which is counted.
    Wrong weights are counted, and the first of the names in the alphabet is returned. Never blocks or raises; the same
    when voicelog is off.
    """
    shares = _shares(weights)
    if not shares:
        what = f"choose_variant({shown(name)}, {shown(weights)})"
        _invalid("weights", f"{what}: expected a dict of names to numbers from 0 on, one of them above 0")
        return _first(weights)
    test, chosen_by = text(name), _key(name, key)
    return max(shares, key=lambda variant: (_luck(test, chosen_by, variant) + math.log(shares[variant]), variant))


def _shares(weights: Any) -> dict[str, float]:
    """Return the variants that can be chosen; none where a weight is wrong."""
    shares: dict[str, float] = {}
    for variant, given in (fit((dict,), weights) or {}).items():
        weight = fit((float,), given)
        if not issubclass(type(variant), str) or not variant or weight is None or weight < 0:
            return {}
        if weight > 0:
            shares[variant] = weight
    return shares


def _first(weights: Any) -> str:
    return min((variant for variant in fit((dict,), weights) or {} if issubclass(type(variant), str)), default="")


def _key(name: Any, key: Any) -> str:
    if key is None:
        session = session_var.get()
        key = session.id if session is not None else None
    if key is None:
        what = f"choose_variant({shown(name)})"
        _invalid("key", f"{what} has no key and is outside of a session, so the choice is random: give key=")
        return os.urandom(16).hex()
    return text(key, MAX_KEY_CHARS)


def _luck(test: str, key: str, variant: str) -> float:
    """Return a number of the Gumbel distribution: with log(weight) added, the highest is each variant's in proportion.

    Each variant's own depends on nothing else, so a weight that changes moves keys to or from that variant only
    (weighted rendezvous hashing).
    """
    said = "".join(f"{len(part)}:{part}" for part in (test, key, variant))
    digest = blake2b(said.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    share = ((int.from_bytes(digest, "big") >> (64 - _BITS)) + 0.5) / 2**_BITS
    return -math.log(-math.log(share))


def _invalid(what: str, sentence: str) -> None:
    client = state.current
    if client is not None:
        client.invalid(f"choose_variant.{what}", sentence)
    else:
        _when_off.report("invalid", f"choose_variant.{what}", sentence)
