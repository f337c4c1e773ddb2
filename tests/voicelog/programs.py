"""Programs of stages, for what must hold of any of them: hypothesis makes them, and each step says what it does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from hypothesis import strategies as st

import voicelog
from voicelog.stage import Stage

Step = tuple[Any, ...]

NAMES = st.sampled_from(["stt", "llm", "tts", "vad", "tool", "", "x" * 64, "y" * 65, "größe", "lone \ud800", None, 7])
CHARACTERS = st.one_of(st.sampled_from('"\\\n\r\t\b\f\0\x1f\x7f/é語😀 \u2028'), st.characters())
TEXTS = st.one_of(st.text(CHARACTERS, max_size=40), st.just("\ud800"), st.just('say "' * 20))
NUMBERS = st.one_of(
    st.integers(), st.sampled_from([2**63 - 1, 2**63, -(2**63), 2**64, 2**2000]), st.floats(),
    st.floats(0, 1).map(lambda number: round(number, 3)), st.sampled_from([-0.0, 1e-7, 1e16, 1e22, 5e-324, 0.1]),
)  # fmt: skip


class Text(str):
    """A text of a subclass, which is not taken as it is."""

    __slots__ = ()


PLAIN = st.one_of(st.none(), st.booleans(), TEXTS, NUMBERS, TEXTS.map(Text), st.binary(max_size=5))
NESTED = st.recursive(
    PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3), max_leaves=12
)
DEEP: Any = [[[[[[[[[[[["down here"]]]]]]]]]]]]
VALUES = st.one_of(PLAIN, NESTED, st.just(DEEP), st.tuples(PLAIN), st.just(object))

FLOATS = st.one_of(st.floats(), st.floats(0, 1).map(lambda number: round(number, 3)))
TYPED: dict[str, st.SearchStrategy[Any]] = {
    **dict.fromkeys(("provider", "model", "language", "voice", "finish_reason"), TEXTS),
    **dict.fromkeys(("transcript", "prompt", "response", "text"), TEXTS),
    **dict.fromkeys(("confidence", "audio_ms", "cost_usd"), FLOATS),
    **dict.fromkeys(("sample_rate_hz", "characters", "bytes"), st.integers(-2, 2**64)),
    "is_final": st.booleans(),
    "parameters": st.dictionaries(TEXTS, PLAIN, max_size=3),
}
"""Known fields, with values of the right type, also where they are out of bounds."""
OTHER_NAMES = ("usage", "tenant", "stage", "span_id", "status", "seq", "attributes", "self", "name", "fields")
FIELDS = st.one_of(
    st.fixed_dictionaries({}, optional=TYPED),
    st.dictionaries(st.sampled_from([*TYPED, *OTHER_NAMES]), VALUES, max_size=4),
)
HAZARDS: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2**53, 2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 2**64, 2**2000,
    0.0, -0.0, 0.1, -0.1, 0.93, 1.0, 1e-6, 1e-7, 1.5e-6, 123456.789, 1e9, 9007199254.740993, 1e15, 1e16, 1e22, 1e300,
    5e-324, 1 / 3, float("nan"), float("inf"), float("-inf"),
    "", "plain",
    *map(chr, (0, 1, 8, 9, 10, 12, 13, 31, 32, 34, 47, 92, 127, 128, 233, 0x2028, 0xD800, 0xFFFF, 0x1F600)),
    *("x" * at + mark + "y" * 9 for at in (0, 1, 6, 7, 8, 9, 15) for mark in '"\\\n\x1f \x7fé'),
    'say "' * 50, "a" * 5000, "é" * 5000, '"' * 5000, "\ud800" * 5, Text("sub"), b"bytes", object, [], {}, [1, [2, {}]],
    {"a": [None, 0.5, "ü"]}, {"\ud800": 1}, {1: 2}, DEEP, (1, 2), {"nan": float("nan")}, {"big": 2**70}, ["\ud800"],
)  # fmt: skip
"""Values that an encoder may get wrong: each is tried as each field, and as an attribute."""
COUNTS = st.dictionaries(st.sampled_from(["input_tokens", "characters_count", "own"]), NUMBERS, max_size=2)
ERRORS = st.sampled_from([ValueError, RuntimeError, KeyboardInterrupt, asyncio.CancelledError, GeneratorExit])

WITHIN = st.one_of(
    st.tuples(st.just("set"), FIELDS),
    st.tuples(st.just("usage"), COUNTS),
    st.tuples(st.just("first")),
    st.tuples(st.just("fail"), ERRORS),
    st.tuples(st.just("interrupt")),
    st.tuples(st.just("enter again")),
    st.tuples(st.just("leave early")),
    st.tuples(st.just("attempt")),
    st.tuples(st.just("raise"), ERRORS),
    st.tuples(st.just("turn")),
)
PROGRAMS = st.lists(
    st.recursive(
        st.one_of(WITHIN, st.tuples(st.just("items"), st.integers(0, 3))),
        lambda inner: st.tuples(
            st.just("stage"), NAMES, FIELDS, st.sampled_from(["with", "async with", "twice", "turn", "call"]),
            st.lists(inner, max_size=4),
        ),
        max_leaves=10,
    ),
    max_size=6,
)  # fmt: skip


@contextmanager
def left_as(how: str, stage: Stage) -> Iterator[None]:
    """Enter and leave a stage in one of the ways to do so."""
    if how == "async with":
        with suppress(StopIteration):
            stage.__aenter__().send(None)
        try:
            yield
        except BaseException as exc:
            with suppress(StopIteration):
                stage.__aexit__(type(exc), exc, None).send(None)
            raise
        with suppress(StopIteration):
            stage.__aexit__(None, None, None).send(None)
        return
    if how == "twice":
        with stage:
            pass
    with stage:
        yield


def run(steps: list[Step], make: Callable[..., Stage], around: Stage | None = None) -> None:
    """Run a program, with stages as `make(name, fields, turn)` makes them; exceptions of its own go on."""
    for kind, *given in steps:
        if kind == "stage":
            _stage(make, *given)
        elif kind == "items":
            _items(make, *given)
        elif kind == "raise":
            raise given[0]("raised")
        elif kind == "turn":
            voicelog.current_turn().end()
        elif around is not None:
            _within(around, kind, *given)


def _stage(make: Callable[..., Stage], name: Any, fields: dict[str, Any], how: str, inner: list[Step]) -> None:
    stage = make(name, dict(fields), voicelog.current_turn() if how == "turn" else None)
    if how == "call":
        stage(lambda: run(inner, make, voicelog.current_stage()))() if name else None
        return
    with left_as(how, stage):
        run(inner, make, stage)


def _items(make: Callable[..., Stage], count: int) -> None:
    @make("llm", {"provider": "p"}, None)
    def stream() -> Iterator[int]:
        yield from range(count)

    assert list(stream()) == list(range(count))


def _within(stage: Stage, kind: str, *given: Any) -> None:
    if kind == "set":
        stage.set(**given[0])
    elif kind == "usage":
        stage.usage(**given[0])
    elif kind == "first":
        stage.mark_first()
    elif kind == "fail":
        stage.fail(given[0]("failed"))
    elif kind == "interrupt":
        stage.interrupt()
    elif kind == "leave early":
        stage.__exit__(None, None, None)
    elif kind == "attempt":
        with ExitStack() as left:
            left.enter_context(stage.attempt(provider="other"))
    elif kind == "enter again":
        with stage:
            pass
