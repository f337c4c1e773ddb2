"""The extension: the same programs give the same events in C and in Python, and nothing of it is kept or lost."""

from __future__ import annotations

import copy
import gc
import json
import os
import pickle
import shutil
import subprocess
import sys
import sysconfig
import threading
import tracemalloc
import weakref
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import HealthCheck, settings
from tests.voicelog.programs import HAZARDS, PROGRAMS, TYPED, Step, run

import voicelog
from voicelog import hot
from voicelog.client import state
from voicelog.stage import HotStage, Stage
from voicelog.testing import Capture, capture

ROOT = Path(__file__).parent.parent.parent
Told = tuple[list[tuple[Any, ...]], str, dict[str, Any]]

pytestmark = pytest.mark.skipif(
    HotStage is Stage and os.environ.get("CI") != "true", reason="the extension is not built: python hatch_build.py"
)


def told(kind: type[Stage], steps: list[Step], monkeypatch: pytest.MonkeyPatch, **given: Any) -> Told:
    """Return what a program leaves behind: its messages, what it raised, and what was counted."""

    def make(name: Any, fields: dict[str, Any], turn: Any) -> Any:
        return voicelog.stage(name, turn=turn, **{n: v for n, v in fields.items() if n not in ("name", "turn")})

    raised = ""
    with monkeypatch.context() as patched, capture(strict=False, **given) as captured:
        patched.setattr(sys.modules["voicelog.stage"], "HotStage", kind)
        try:
            with voicelog.session("call", variant="a"), voicelog.turn(), voicelog.stage("around", model="m") as around:
                run(steps, make, around)
        except BaseException as exc:
            raised = repr(exc)
        return [message_of(captured, at) for at in range(len(captured.messages))], raised, captured.counters.snapshot()


def message_of(captured: Capture, at: int) -> tuple[Any, ...]:
    """Return a message as it is compared: whole, but for how its JSON is written and the lines of a stack trace."""
    message = captured.messages[at]
    fields = json.loads(message.value)
    for error in (fields.get("error"), *(attempt.get("error") for attempt in fields.get("attempts") or ())):
        if error:
            error["stack"] = error["stack"].splitlines()[-1]
    names = sorted(fields)  # a field that is there twice would be there once in what json reads
    assert message.value.count(b'"event_id"') == 1
    return message.topic, message.key, message.headers, names, fields


SETTINGS: dict[str, dict[str, Any]] = {
    "default": {}, "all content": {"capture_content": "all"}, "no transcript": {"capture_content": "-transcript"},
    "redacted": {"redact": "email"}, "cut": {"max_message_bytes": 2000},
}  # fmt: skip
each_setting = pytest.mark.parametrize("given", SETTINGS.values(), ids=SETTINGS)


@each_setting
def test_a_program_of_stages_gives_the_same_events_in_c_and_in_python(given: dict[str, Any]) -> None:
    @settings(max_examples=60 if not given else 20, suppress_health_check=list(HealthCheck))
    @hypothesis.given(PROGRAMS)
    def same(steps: list[Step]) -> None:
        monkeypatch = pytest.MonkeyPatch()
        assert told(HotStage, steps, monkeypatch, **given) == told(Stage, steps, monkeypatch, **given)

    same()


@each_setting
@pytest.mark.parametrize("name", ["stt", "llm", "tts", "vad"])
def test_every_value_of_every_field_is_the_same_in_c_and_in_python(
    name: str, given: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = [*TYPED, "tenant"] if not given else ["transcript", "confidence", "prompt", "tenant"]
    programs = [("set", {field: value}) for field in fields for value in HAZARDS]
    programs += [("set", {field: "me@example.org"}) for field in ("transcript", "response", "text", "tenant")]
    steps = [("stage", name, {"model": "m"}, "with", [step]) for step in programs]
    fast, pure = (told(kind, steps, monkeypatch, **given) for kind in (HotStage, Stage))
    assert len(fast[0]) == len(steps) + 4
    different = [pair for pair in zip(fast[0], pure[0], strict=True) if pair[0] != pair[1]]
    assert different == []
    assert fast[1:] == pure[1:]


def test_the_common_stage_runs_in_c_alone(captured: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without this the tests above would pass with an extension that does nothing."""

    def never(*_: object) -> None:
        pytest.fail("the common case went to the Python code")

    with voicelog.session("call"), voicelog.turn():
        for name in ("stt", "llm", "tts", "vad"):
            with voicelog.stage(name):
                pass
        for name in ("__init__", "_begin", "_finish", "__enter__", "__exit__"):
            monkeypatch.setattr(Stage, name, never)
        for name, fields in COMMON.items():
            with voicelog.stage(name, provider="p", model="m") as one:
                one.set(**fields)
                one.mark_first()
    assert [event.stage for event in captured.stages()[4:]] == list(COMMON)


COMMON: dict[str, dict[str, Any]] = {
    "stt": {"transcript": "hello", "confidence": 0.93, "is_final": True, "audio_ms": 12.5},
    "llm": {"response": 'say "hello"', "finish_reason": "stop"},
    "tts": {"text": "größe", "characters": 5, "sample_rate_hz": 24000},
    "vad": {},
}


def one_of_each() -> None:
    """Run stages of every kind: common ones, and ones that C hands to the Python code in each of its steps."""
    for name, fields in COMMON.items():
        with voicelog.stage(name, provider="p") as one, voicelog.stage("inner"):
            one.set(**fields)
    with voicelog.stage("tool", tenant="t") as one:
        one.set(odd=object(), number=2**70, text="\ud800")
        one.usage(input_tokens=3)
        one.mark_first()
    with voicelog.stage("llm", turn=voicelog.current_turn(), prompt="p") as one, one.attempt(provider="q"):
        pass
    with one:
        pass
    with suppress(ValueError), voicelog.stage("x" * 100):
        raise ValueError
    voicelog.stage("never entered", provider="p")


def shared(session: voicelog.Session) -> list[object]:
    """Return the objects that each stage takes references to, and must let go of."""
    client = state.current
    assert client is not None
    assert session.stream is not None
    plan = voicelog.stage("stt")._plan
    mine = [client, session, session.stream, session.stream.anchor, session.stream.key, plan, plan.kind, plan.known]
    return [*mine, session.current_turn, client.producer, client.now_ns, HotStage, Stage, None]


@pytest.mark.parametrize("full", [False, True], ids=["taken", "dropped"])
def test_stages_keep_neither_memory_nor_references(full: bool) -> None:
    with capture(strict=False) as captured, voicelog.session("call") as session, voicelog.turn() as turn:
        captured.full = full

        def round() -> tuple[int, list[int]]:
            for _ in range(100):
                one_of_each()
                captured.clear()
                turn.runs.clear()
                turn._stage_marks.clear()
            gc.collect()
            return tracemalloc.get_traced_memory()[0], [sys.getrefcount(it) for it in shared(session)[:-1]]

        tracemalloc.start()
        try:
            rounds = [round() for _ in range(6)][1:]
        finally:
            tracemalloc.stop()
    assert {str(references) for _, references in rounds} == {str(rounds[0][1])}
    # What leaks grows in each round; a cache that fills, or another thread, in some.
    assert min(later - earlier for (earlier, _), (later, _) in pairwise(rounds)) < 5_000


def test_a_stage_that_refers_to_itself_is_collected(lenient: Capture) -> None:
    class Witness:
        pass

    with voicelog.session("call"):
        one, witness = voicelog.stage("tool"), Witness()
        with one:
            one.set(myself=one, witness=witness)
        seen = weakref.ref(witness)
        del one, witness
        lenient.clear()
        assert seen() is not None
        gc.collect()
        assert seen() is None


def test_threads_may_enter_stages_at_once(captured: Capture) -> None:
    session = voicelog.session("call").start()
    threads = [
        threading.Thread(target=voicelog.copy_context(lambda: [one_of_common() for _ in range(300)])) for _ in range(8)
    ]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    session.end()
    spans = [event.span_id for event in captured.stages()]
    assert len(spans) == len(set(spans)) == 8 * 300
    assert sorted(event.seq for event in captured.events) == list(range(1, 8 * 300 + 3))


def one_of_common() -> None:
    with voicelog.stage("stt", provider="p") as stt:
        stt.set(transcript="hello", confidence=0.5)


@pytest.mark.parametrize("step", [copy.copy, lambda it: pickle.loads(pickle.dumps(it))], ids=["copied", "pickled"])
def test_a_stage_can_be_copied_and_pickled(step: Callable[[Stage], Stage], captured: Capture) -> None:
    given = voicelog.stage("stt", provider="p", tenant="t")
    with voicelog.session("call"), step(given) as one:
        one.set(transcript="hello")
    (event,) = captured.stages()
    assert (event.provider, event.attributes, event.transcript) == ("p", {"tenant": "t"}, "hello")


def test_a_stage_is_of_the_public_class_and_has_nothing_more_than_it() -> None:
    one = voicelog.stage("stt")
    assert isinstance(one, voicelog.Stage)
    assert HotStage.__basicsize__ == Stage.__basicsize__
    with pytest.raises(AttributeError):
        one.unknown = 1  # type: ignore[attr-defined]
    with pytest.raises(TypeError):
        weakref.ref(one)


def test_a_subclass_of_the_public_class_is_used_as_it_is(captured: Capture) -> None:
    class Mine(voicelog.Stage):
        def set(self, /, **fields: Any) -> None:
            super().set(**{name: f"<{value}>" for name, value in fields.items()})

    with voicelog.session("call"), Mine("stt", {}) as mine:
        mine.set(transcript="hello")
        with voicelog.stage("inner"):
            pass
    inner, event = captured.stages()
    assert (event.transcript, inner.parent_id) == ("<hello>", event.span_id)


def test_wrong_arguments_raise_as_the_python_code_raises(captured: Capture) -> None:
    for kind in (Stage, HotStage):
        one = kind("stt", {})
        with pytest.raises(TypeError, match=r"takes 1 positional argument but 2 were given"):
            one.set({"transcript": "t"})  # type: ignore[call-arg]
        with pytest.raises(TypeError, match=r"missing 3 required positional arguments"):
            one.__exit__()  # type: ignore[call-arg]
        with pytest.raises(TypeError, match=r"missing 1 required positional argument"):
            kind("stt")  # type: ignore[call-arg]


def in_a_process(program: str, **environ: str) -> str:
    """Return what a program prints in a process of its own, which must end well."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)]), **environ}
    done = subprocess.run(
        [sys.executable, "-c", program], env=env, capture_output=True, text=True, timeout=120, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


RUN_ALL = """
import voicelog
from voicelog.testing import capture
from tests.voicelog.test_hot import one_of_each
with capture(strict=False) as captured, voicelog.session("call"), voicelog.turn():
    for _ in range(200):
        one_of_each()
print(voicelog.stats()["accelerated"], len(captured.messages))
"""


def test_memory_is_used_as_it_may_be() -> None:
    assert in_a_process(RUN_ALL, PYTHONMALLOC="debug", PYTHONDEVMODE="1").split()[0] == "True"


def test_the_environment_chooses_python_and_nothing_else_changes() -> None:
    fast, pure = in_a_process(RUN_ALL).split(), in_a_process(RUN_ALL, VOICELOG_PURE_PYTHON="1").split()
    assert (fast[0], pure[0]) == ("True", "False")
    assert fast[1] == pure[1]


def test_an_extension_of_other_sources_is_not_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(hot, "CONTRACT", hot.CONTRACT + 1)
    assert hot.accelerated(Stage) is Stage
    assert "stages run in Python, which is slower: the extension is of another version; rebuild it" in caplog.text


def test_an_extension_that_can_not_be_bound_is_not_used(caplog: pytest.LogCaptureFixture) -> None:
    assert hot.accelerated(Stage) is Stage  # it is bound already
    assert "voicelog.stage was loaded twice" in caplog.text


PURE = ("test_stage.py", "test_turn.py", "test_decorate.py")


def test_the_suites_of_a_stage_pass_in_python_too() -> None:
    """They run on the extension otherwise; `make test-pure` runs all of the library's suites so."""
    files = [str(ROOT / "tests" / "voicelog" / name) for name in PURE]
    program = f"import sys, pytest; sys.exit(pytest.main(['-q', '-p', 'no:cacheprovider', *{files}]))"
    assert " passed" in in_a_process(program, VOICELOG_PURE_PYTHON="1")


def test_the_extension_compiles_without_a_warning(tmp_path: Path) -> None:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler is installed")
    include = sysconfig.get_path("include")
    for source in sorted((ROOT / "src" / "voicelog").glob("_hot*.c")):
        warnings = [
            "-std=c11",
            "-O2",
            "-Wall",
            "-Wextra",
            "-Wshadow",
            "-Wconversion",
            "-Wno-missing-field-initializers",
        ]
        command = [compiler, *warnings, "-Werror", "-isystem", include, "-c", source, "-o", tmp_path / "out.o"]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
