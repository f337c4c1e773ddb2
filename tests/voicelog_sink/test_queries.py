"""The list of calls, one call, and finding it by what a person types; against a real SQLite file."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.builders import START_US, CallBuilder, realistic_call, sqlite_store, store_calls, troubled_call

from voicelog.events import SHARDS
from voicelog.settings import load
from voicelog_sink.calls import call_of
from voicelog_sink.listing import PAGE
from voicelog_sink.queries import NoSuchSession, Page, Place, call, find, sessions, sessions_page
from voicelog_sink.retention import most_days
from voicelog_sink.rows import DAY_MS, rows_of
from voicelog_sink.stores.base import Row, Values
from voicelog_sink.stores.sqlite import SqliteStore
from voicelog_sink.summary import Summary, summarise, summary_rows
from voicelog_sink.tables import SESSION_SUMMARIES, SESSIONS_BY_DAY
from voicelog_sink.wanted import Wanted

NOW = START_US // 1000
HOUR_US = 3_600_000_000


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    store = sqlite_store(tmp_path / "calls.db")
    yield store
    store.close()


def short_call(session_id: str, start_us: int) -> CallBuilder:
    built = CallBuilder(session_id, start_us=start_us)
    built.started(), built.ended(10)
    return built


def listed(store: SqliteStore, since_ms: int, until_ms: int, limit: int = 1000) -> list[str]:
    return [summary.session_id for summary in sessions(store, since_ms, until_ms, limit)]


def test_no_calls_make_an_empty_list(store: SqliteStore) -> None:
    assert sessions(store, NOW - DAY_MS, NOW, 10) == []


def test_calls_are_listed_newest_first_over_days_and_shards(store: SqliteStore) -> None:
    calls = [short_call(f"call-{n}", START_US - n * 5 * HOUR_US) for n in range(40)]
    store_calls(store, calls)
    assert listed(store, NOW - 20 * DAY_MS, NOW + 1) == [c.session_id for c in calls]
    assert listed(store, NOW - 20 * DAY_MS, NOW + 1, limit=3) == ["call-0", "call-1", "call-2"]


def test_since_is_included_and_until_is_not(store: SqliteStore) -> None:
    store_calls(store, [short_call(f"call-{n}", START_US + n * 1000) for n in range(4)])
    assert listed(store, NOW + 1, NOW + 3) == ["call-2", "call-1"]


def test_listed_call_is_its_whole_summary(store: SqliteStore) -> None:
    built = realistic_call()
    store_calls(store, [built])
    assert sessions(store, NOW, NOW + 1, 1) == [summarise(built.events)]


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, 5), min_size=1, max_size=8), st.integers(1, 200))
def test_more_calls_than_a_page_within_one_millisecond_are_all_listed(
    tmp_path_factory: pytest.TempPathFactory, offsets_ms: list[int], limit: int
) -> None:
    store = sqlite_store(tmp_path_factory.mktemp("list") / "calls.db")
    calls = [
        short_call(f"call-{place}-{n}", START_US + offset * 1000)
        for place, offset in enumerate(offsets_ms)
        for n in range(PAGE)
    ]
    store_calls(store, calls)
    expected = sorted(calls, key=lambda c: (-c.start_us, c.session_id))
    assert listed(store, NOW, NOW + 10, limit) == [c.session_id for c in expected][:limit]
    store.close()


def test_one_shard_with_many_pages_is_read_to_its_end(store: SqliteStore) -> None:
    summary = summarise(short_call("call", START_US).events)
    assert summary is not None
    in_table, in_list = summary_rows(summary)
    rows = [
        row._replace(values={**row.values, "session_id": f"call-{n:03d}", "started_at": NOW + n // 50})
        for n in range(300)
        for row in (in_table, in_list)
    ]
    store.write(rows)
    expected = [f"call-{n:03d}" for group in range(5, -1, -1) for n in range(group * 50, group * 50 + 50)]
    assert listed(store, NOW, NOW + 1000) == expected


# --- filters and pages


def called(session_id: str, **fields: Any) -> Summary:
    summary = summarise(short_call(session_id, START_US).events)
    assert summary is not None
    return attrs.evolve(summary, **fields)


names = st.none() | st.sampled_from("ab")
summaries = st.builds(
    called, st.just("call-1"), service=names, variant=names, providers=st.lists(st.sampled_from("ab")).map(tuple),
    models=st.lists(st.sampled_from(["a", "b", 'c"b', 'a"b"'])).map(tuple), user_id=names, errors=st.integers(0, 2),
    interruptions=st.integers(0, 2), user_bot_latency_max_ms=st.none() | st.floats(0, 5),
)  # fmt: skip
given_names = st.none() | st.sampled_from(["a", "b", ""])
wanteds = st.builds(
    Wanted, service=given_names, provider=given_names, model=given_names, variant=given_names, user=given_names,
    slow_ms=st.none() | st.floats(0, 5), failed=st.booleans(), interrupted=st.booleans(),
)  # fmt: skip


def fits_by_hand(wanted: Wanted, call: Summary) -> bool:
    wrong = [
        wanted.service is not None and call.service != (wanted.service or None),
        wanted.variant is not None and call.variant != (wanted.variant or None),
        wanted.provider is not None and wanted.provider not in (call.providers or ("",)),
        wanted.model is not None and wanted.model not in (call.models or ("",)),
        wanted.user is not None and call.user_id != (wanted.user or None),
        wanted.slow_ms is not None
        and (call.user_bot_latency_max_ms is None or call.user_bot_latency_max_ms < wanted.slow_ms),
        wanted.failed and call.errors == 0,
        wanted.interrupted and call.interruptions == 0,
    ]
    return not any(wrong)


@given(wanteds, summaries)
def test_call_is_wanted_when_all_that_is_set_holds(wanted: Wanted, call: Summary) -> None:
    assert wanted.fits(call) == fits_by_hand(wanted, call)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(wanteds, st.lists(summaries, min_size=1, max_size=5))
def test_list_holds_the_calls_that_are_wanted(
    tmp_path_factory: pytest.TempPathFactory, wanted: Wanted, calls: list[Summary]
) -> None:
    store = sqlite_store(tmp_path_factory.mktemp("list") / "calls.db")
    calls = [attrs.evolve(call, session_id=f"call-{n}") for n, call in enumerate(calls)]
    store.write([row for call in calls for row in summary_rows(call)])
    assert sessions(store, NOW, NOW + 1, 10, wanted) == [call for call in calls if fits_by_hand(wanted, call)]
    store.close()


@given(wanteds, summaries)
def test_what_the_store_is_asked_holds_for_every_call_that_is_wanted(wanted: Wanted, call: Summary) -> None:
    row = summary_rows(call)[1].values
    holds = {
        "=": lambda value, given: value == given,
        ">=": lambda value, given: value is not None and value >= given,
        "has": lambda value, given: given in value,
    }
    if wanted.fits(call):
        assert all(holds[operator](row[name], value) for name, operator, value in wanted.conditions)


LETTERS = "aA ß\u017fKk"  # a long s is an s whatever the case
SPOKEN = ("transcript", "response", "text", "message", "error_message")


def spoken_calls(seed: int, count: int) -> Iterator[tuple[Summary, list[Values]]]:
    """Yield summaries with the rows of their events, all of few letters."""
    random = Random(seed)

    def word() -> str:
        return "".join(random.choices(LETTERS, k=random.randint(1, 2)))

    for number in range(count):
        at_ms, user = NOW - random.choice([0, 1, 2, DAY_MS, 3 * DAY_MS, 40 * DAY_MS]), random.choice([None, "a", "b"])
        attributes = random.choice([None, {}, {word(): word()}, {word(): [word(), True, {word(): 1.5}]}])
        summary = called(f"call-{number:03d}", started_at=at_ms, user_id=user, variant=user, attributes=attributes)
        key = {"session_id": summary.session_id, "ts": at_ms, "stream_id": "s", "type": "log", "v": 1, "prompt": "k"}
        yield summary, [{**key, "seq": seq, random.choice(SPOKEN): word()} for seq in range(random.randint(0, 2))]


def says_by_hand(summary: Summary, rows: list[Values], text: str) -> bool:
    def leaves(value: Any) -> Iterator[str]:
        if isinstance(value, (dict, list)):
            for each in value.values() if isinstance(value, dict) else value:
                yield from leaves(each)
        elif value is not None:
            yield str(value)

    known = [summary.session_id, summary.user_id or "", *leaves(summary.attributes)]
    return any(text.casefold() in each.casefold() for each in (*known, *(r.get(c, "") for r in rows for c in SPOKEN)))


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.integers(), st.sampled_from([1, 60]), st.none() | st.text(st.sampled_from(LETTERS), min_size=1, max_size=2),
    given_names, given_names, st.integers(1, 40), st.sampled_from([1, 4, 50]), st.booleans(),
)  # fmt: skip
def test_pages_of_any_search_are_what_looking_through_every_call_finds(
    tmp_path_factory: pytest.TempPathFactory, seed: int, count: int, text: str | None, user: str | None,
    variant: str | None, limit: int, days: int, stops: bool,
) -> None:  # fmt: skip
    store, calls = sqlite_store(tmp_path_factory.mktemp("search") / "calls.db"), list(spoken_calls(seed, count))
    store.write([row for summary, _ in calls for row in summary_rows(summary)])
    store.write([Row("voice_interactions", row) for _, rows in calls for row in rows])
    wanted, since_ms = Wanted(text=text, user=user, variant=variant), NOW - days * DAY_MS
    expected = [
        summary
        for summary, rows in sorted(calls, key=lambda call: (-call[0].started_at, call[0].session_id))
        if since_ms <= summary.started_at and fits_by_hand(wanted, summary)
        and (text is None or says_by_hand(summary, rows, text))
    ]  # fmt: skip
    found: list[Summary] = []
    page = sessions_page(store, since_ms, NOW + 1, limit, wanted, go_on=lambda _: not stops)
    while page.after:
        assert len(page.calls) == limit or (page.searched_to is not None and stops)
        found += page.calls
        page = sessions_page(store, since_ms, NOW + 1, limit, wanted, page.after, go_on=lambda _: not stops)
    assert [*found, *page.calls] == expected
    store.close()


def test_text_is_found_whatever_the_case_in_what_was_said_and_in_the_summary(store: SqliteStore) -> None:
    said = short_call("call-said", START_US)
    said.stage("stt", 5, 1, transcript="And for Sunday?"), said.stage("tts", 7, 1, text="GRÜSS Gott")
    known = CallBuilder("call-known", start_us=START_US, user_id="okafor", stream_id="00000000000000ff")
    known.started(attributes={"tenant": {"name": "Trattoria Weiß", "tables": [2, None]}})
    store_calls(store, [said, known])

    def found(text: str) -> list[str]:
        return [call.session_id for call in sessions(store, NOW, NOW + 1, 10, Wanted(text=text))]

    assert found("for sunday") == found("grüß") == found("CALL-SAID") == ["call-said"]
    assert found("OKAFOR") == found("trattoria weiss") == ["call-known"]
    assert found("call") == ["call-known", "call-said"]
    assert found("monday") == found("None") == []


class WatchedStore(SqliteStore):
    """A store that knows which partitions were read from it."""

    def __init__(self, path: Path) -> None:
        super().__init__(load({"store": f"sqlite:///{path}"}, {})[0], lambda: NOW)
        self.read: dict[str, list[str]] = {"voice_interactions": [], "session_summaries": []}

    def select(self, source: str, partitions: Sequence[Mapping[str, Any]], **bounds: Any) -> Iterator[Values]:
        self.read.setdefault(source, []).extend(partition.get("session_id", "") for partition in partitions)
        return super().select(source, partitions, **bounds)

    def tuples(
        self, source: str, names: Sequence[str], partitions: Sequence[Mapping[str, Any]], **bounds: Any
    ) -> Iterator[tuple[Any, ...]]:
        self.read.setdefault(source, []).extend(partition["session_id"] for partition in partitions)
        return super().tuples(source, names, partitions, **bounds)

    def texts(self, source: str, names: Sequence[str], partitions: Iterable[Mapping[str, Any]]) -> Iterator[str]:
        self.read[source] += [partition["session_id"] for partition in partitions]
        return super().texts(source, names, partitions)


class CountingStore(SqliteStore):
    """A SQLite store that counts the days it is asked for; `is_swept` as one whose rows carry their expiry."""

    def __init__(self, path: Path, is_swept: bool) -> None:
        super().__init__(load({"store": f"sqlite:///{path}"}, {})[0])
        self.writes_expiry = is_swept  # type: ignore[misc]
        self.days = 0

    def select(self, source: str, partitions: Sequence[Mapping[str, Any]], **bounds: Any) -> Iterator[Values]:
        self.days += len(partitions) // SHARDS if source == "sessions_by_day" else 0
        return super().select(source, partitions, **bounds)


@pytest.mark.parametrize("is_swept", [True, False])
@pytest.mark.parametrize("days_ago", [400, 800])
def test_days_before_the_first_that_can_have_calls_are_not_read(tmp_path: Path, is_swept: bool, days_ago: int) -> None:
    """Rows that are over are listed while a file still has them, however long ago they began."""
    now_ms = int(time.time() * 1000)
    old_ms = now_ms - days_ago * DAY_MS + 60_000
    written = sqlite_store(tmp_path / "calls.db", lambda: old_ms)
    store_calls(written, [short_call("call-old", old_ms * 1000), short_call("call-new", now_ms * 1000)])
    written.close()
    store = CountingStore(tmp_path / "calls.db", is_swept)
    store.open(1000)
    expected = ["call-new", "call-old"] if days_ago == 400 or not is_swept else ["call-new"]
    assert listed(store, 0, now_ms + DAY_MS) == expected
    assert store.days <= (403 if is_swept else days_ago + 3)
    store.close()


def test_no_rule_keeps_the_list_of_calls_for_longer_than_it_is_looked_through() -> None:
    assert SESSIONS_BY_DAY.lifetime_days is not None
    assert most_days(SESSION_SUMMARIES.name) <= SESSIONS_BY_DAY.lifetime_days


def test_list_without_calls_ends_at_once_however_far_back(tmp_path: Path) -> None:
    sqlite_store(tmp_path / "calls.db").close()
    store = CountingStore(tmp_path / "calls.db", is_swept=False)
    store.open(1000)
    assert listed(store, 0, int(time.time() * 1000)) == []
    assert store.days <= 403
    store.close()


def test_events_are_read_only_for_a_text_and_summaries_only_of_calls_that_may_be_wanted(tmp_path: Path) -> None:
    full = sqlite_store(tmp_path / "calls.db")
    store_calls(full, [short_call("call-1", START_US), troubled_call("call-2"), troubled_call("call-3", seed=3)])
    full.close()
    store = WatchedStore(tmp_path / "calls.db")
    store.open(1000)
    assert len(sessions(store, NOW, NOW + 1, 10, Wanted(failed=True))) == 2
    assert store.read["voice_interactions"] == []
    assert store.read["session_summaries"] == ["call-2", "call-3"]
    assert len(sessions(store, NOW, NOW + 1, 10, Wanted(failed=True, text="sunday"))) == 2
    assert store.read["voice_interactions"] == ["call-2", "call-3"]
    store.close()


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, 3), min_size=1, max_size=12), st.integers(1, 5))
def test_pages_hold_each_call_once_whatever_begins_meanwhile(
    tmp_path_factory: pytest.TempPathFactory, offsets_ms: list[int], limit: int
) -> None:
    store = sqlite_store(tmp_path_factory.mktemp("pages") / "calls.db")
    store_calls(store, [short_call(f"call-{n:02d}", START_US + at * 1000) for n, at in enumerate(offsets_ms)])
    expected = listed(store, NOW, NOW + 100)
    found: list[str] = []
    after: str | None = None
    for number in range(len(offsets_ms)):
        page = sessions_page(store, NOW, NOW + 100, limit, after=after)
        found += [call.session_id for call in page.calls]
        after = page.after
        if after is None:
            break
        store_calls(store, [short_call(f"new-{number}", START_US + 10_000 + number)])
    assert (found, after) == (expected, None)
    store.close()


def test_page_that_ends_with_the_list_says_so(store: SqliteStore) -> None:
    store_calls(store, [short_call(f"call-{n}", START_US + n * 1000) for n in range(4)])
    assert sessions_page(store, NOW, NOW + 9, 4).after is None
    first = sessions_page(store, NOW, NOW + 9, 3)
    assert first.after == f"{NOW + 1}:call-1"
    assert sessions_page(store, NOW, NOW + 9, 1, after=first.after).after is None
    assert sessions_page(store, NOW, NOW + 9, 3, after=f"{NOW}:call-0").calls == ()


@pytest.mark.parametrize("token", ["", "5", "5:", ":call", "x:call", "-5:call", "²:call", "9" * 16 + ":call",
                                   "1:2:3", "1577836799999:call"])  # fmt: skip
def test_wrong_cursor_says_what_was_expected(store: SqliteStore, token: str) -> None:
    with pytest.raises(ValueError, match="is no place in the list: expected a `cursor` that `sessions --json` printed"):
        Place.read(token)


@given(st.integers(1_577_836_800_000, 10**15 - 1), st.text(min_size=1))
def test_cursor_of_any_call_is_read_again(started_at: int, session_id: str) -> None:
    assert Place.read(Place(started_at, session_id).token) == Place(started_at, session_id)


def test_search_that_is_stopped_says_how_far_it_came_and_goes_on_from_there(store: SqliteStore) -> None:
    calls = [called(f"call-{n:02d}", started_at=NOW - n, user_id="okafor" if n in (3, 50) else None) for n in range(60)]
    store.write([row for call in calls for row in summary_rows(call)])
    places: list[Place] = []
    first = sessions_page(store, NOW - 100, NOW + 1, 20, Wanted(text="okafor"), go_on=places.append)  # type: ignore[arg-type]
    assert (first.calls, first.searched_to, first.after) == ((calls[3],), NOW - 31, f"{NOW - 31}:call-31")
    assert places == [Place(NOW - 31, "call-31")]
    assert sessions_page(store, NOW - 100, NOW + 1, 20, Wanted(text="okafor"), first.after) == Page((calls[50],), None)


# --- what the list leaves out


def test_list_row_that_disagrees_with_its_summary_is_left_out(store: SqliteStore) -> None:
    late, whole = short_call("call-1", START_US).events[1:], short_call("call-1", START_US).events
    for events in (late, whole):
        summary = summarise(events)
        assert summary is not None
        store.write(summary_rows(summary))
    assert [s.started_at for s in sessions(store, NOW - 1, NOW + 100, 10)] == [NOW]


def test_call_whose_summary_was_erased_is_not_listed(store: SqliteStore) -> None:
    store_calls(store, [short_call("call-1", START_US)])
    store.delete("session_summaries", [{"session_id": "call-1"}])
    assert listed(store, NOW, NOW + 1) == []


def test_call_comes_back_whole(store: SqliteStore) -> None:
    for built in (realistic_call(), troubled_call()):
        store_calls(store, [built])
        summary = summarise(built.events)
        assert summary is not None
        assert call(store, built.session_id) == call_of(summary, built.events)


def test_live_call_without_a_summary_is_right_too(store: SqliteStore) -> None:
    events = realistic_call().events[:8]
    store.write([row for event in events for row in rows_of(event)])
    found = call(store, "call-1")
    assert found is not None
    assert found.summary == summarise(events)
    assert [turn.event is not None for turn in found.turns] == [True, False]


def test_call_whose_events_expired_has_its_summary_and_no_turns(store: SqliteStore) -> None:
    summary = summarise(realistic_call().events)
    assert summary is not None
    store.write(summary_rows(summary))
    found = call(store, "call-1")
    assert found is not None
    assert (found.summary, found.turns, found.outside) == (summary, (), ())


def test_unknown_call_is_none(store: SqliteStore) -> None:
    assert call(store, "call-1") is None


def test_call_is_found_by_its_id_a_unique_beginning_or_as_the_last(store: SqliteStore) -> None:
    store_calls(
        store, [short_call("ab-1", START_US), short_call("ab-12", START_US - HOUR_US), short_call("cd", START_US - 1)]
    )
    assert [find(store, given, NOW) for given in ("ab-1", "ab-12", "c", "last")] == ["ab-1", "ab-12", "cd", "ab-1"]


def test_live_call_is_found_by_its_whole_id(store: SqliteStore) -> None:
    store.write([row for event in short_call("call-1", START_US).events for row in rows_of(event)])
    assert find(store, "call-1", NOW) == "call-1"


def test_beginning_of_several_calls_names_them(store: SqliteStore) -> None:
    store_calls(store, [short_call(f"call-{n}", START_US) for n in range(7)])
    with pytest.raises(
        NoSuchSession,
        match=r"7 calls begin with 'call-': call-0, call-1, call-2, call-3, call-4, \.\.\.; give more of the id",
    ):
        find(store, "call-", NOW)


def test_unknown_call_names_near_ones_or_the_command_that_lists_them(store: SqliteStore) -> None:
    store_calls(store, [short_call("call-trouble", START_US)])
    with pytest.raises(NoSuchSession, match="no call 'cal-trouble' is stored: did you mean call-trouble") as caught:
        find(store, "cal-trouble", NOW)
    assert caught.value.near == ("call-trouble",)
    with pytest.raises(
        NoSuchSession, match="no call 'x' is stored: `voicelog-sink sessions --since 90d` lists the calls"
    ):
        find(store, "x", NOW)


def test_last_call_of_an_empty_store_is_a_sentence(store: SqliteStore) -> None:
    with pytest.raises(NoSuchSession, match="there is no call yet within 90 days"):
        find(store, "last", NOW)
