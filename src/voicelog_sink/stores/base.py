"""What every store does: rows in, rows out, and its own schema. The contract that both stores are tested against."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import attrs

from voicelog_sink.stores.lifetime import Lifetimes
from voicelog_sink.stores.query import Condition

Values = dict[str, Any]
"""A row: column to value. A TIME is an int of milliseconds, a BLOB bytes; an absent column is None or left out."""


class Row(NamedTuple):
    """One row for `table`; every key column is set."""

    table: str
    values: Values


class Rejected(NamedTuple):
    """A row, by its index in what was written, that the store will never take."""

    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody calls on a Rejected
    error: str
    message: str


class Asked(NamedTuple):
    """One request to the store that was answered, or failed: what a database is sent at once, a transaction of SQLite.

    Times are monotonic seconds; `table` is `*` for a transaction over all; `error` is the error's name, '' for none.
    """

    table: str
    rows: int
    start_s: float
    end_s: float
    error: str = ""


OnAsked = Callable[[Asked], None]


def ignore(_: Asked) -> None:
    """Do nothing with a request that was answered."""


@attrs.frozen
class Difference:
    """One way in which the live schema is not what it should be: `what` is a sentence, `remedy` the command."""

    what: str
    remedy: str


class StoreError(Exception):
    """Base of what a store raises; the driver's error is its cause."""


class StoreUnavailable(StoreError):
    """The store can't be reached, is overloaded or timed out: the same call may succeed later."""


class StoreMisconfigured(StoreError):
    """The store answers but can't work as it is: a missing table, a refused login, a wrong URL. Needs an operator."""


class Store(ABC):
    """A store of voicelog's tables. Used by one thread; a second thread opens a second store."""

    on_asked: OnAsked = staticmethod(ignore)
    """Called by `write` and `delete`, in their thread, for each request as its answer is taken; must cost nothing."""

    writes_expiry: ClassVar[bool]
    """Whether each row carries its expiry from when it was written, so that other lifetimes need it written anew."""

    @abstractmethod
    def open(self, timeout_ms: int) -> None:
        """Connect. Blocks up to about `timeout_ms`; raises StoreUnavailable or StoreMisconfigured.

        The schema need not exist yet: `init` and `check` work after it, `write` and `select` raise
        StoreMisconfigured where a table is missing. A call after a failed one is allowed.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of every connection, thread and file. Never raises; a second call does nothing."""

    @abstractmethod
    def ping(self) -> None:
        """Ask the store for a sign of life; raises StoreUnavailable or StoreMisconfigured."""

    @abstractmethod
    def clock_ms(self) -> int:
        """Return the time by the store's own clock, epoch milliseconds; raises as `ping` does."""

    @abstractmethod
    def keep_for(self, lifetimes: Lifetimes) -> None:
        """Go by these lifetimes from the next `write` on, in place of those by default (`ttl_days`). Does no I/O.

        A store whose rows do not carry their expiry takes out what is over, also of what was stored before; before the
        first call it takes out nothing.
        """

    @abstractmethod
    def write(self, rows: Sequence[Row]) -> list[Rejected]:
        """Store every row durably and return those that the store will never take.

        Blocks until each row is acknowledged or refused. The same row again changes nothing. Rows expire their
        lifetime after their `born_column` (at the latest after the write: a moment in the future counts as now), and
        their texts before them where `keep_for` says so; what is over already is left out silently, a row (the caller
        counts those beforehand) or its texts. A row of a table
        with a version never replaces one of a higher version, in whatever order they come; of two different rows of
        the same version either may win. StoreUnavailable and StoreMisconfigured say that some rows may be stored and
        some not: the caller writes all of them again.
        """

    @abstractmethod
    def delete(self, table: str, keys: Sequence[Values], columns: Sequence[str] = ()) -> None:
        """Delete rows by their whole keys, or only these columns of them; what is not there is ignored.

        Raises as `write` does.

        In a table with a version this is final: CQL hides whatever is written to that key afterwards, of any
        version, until gc_grace has passed. Elsewhere the row can be written anew.
        """

    @abstractmethod
    def purge(self) -> None:
        """Overwrite what was deleted in the store's own files, where it has any: nothing can be read from them then.

        Blocks, for a large file for minutes. Raises as `write` does: what is deleted stays so, the files keep it.
        """

    @abstractmethod
    def select(
        self,
        source: str,
        partitions: Sequence[Mapping[str, Any]],
        *,
        since_ms: int | None = None,
        until_ms: int | None = None,
        limit: int | None = None,
        where: Sequence[Condition] = (),
        names: Sequence[str] | None = None,
    ) -> Iterator[Values]:
        """Yield rows of a table or view, partition by partition in the given order, each in its clustering order.

        A partition gives every partition-key column, or one indexed column. `since_ms` (inclusive) and `until_ms`
        (exclusive) bound the first clustering column where that is a TIME; `limit` is per partition. Rows hold every
        column, or those of `names` alone, absent as None. Streams: a long partition is not held in memory. Raises as
        `write` does.

        Each condition of `where` (column, operator, value) holds for every row that comes, and `limit` counts these:
        `=` the value, `>=` at least the value, `has` the value somewhere in a text, with its case. An absent column
        fits none. The rows that do not fit are still read where they are stored, but do not come over: but for `has`
        in CQL, which has no such operator.
        """

    @abstractmethod
    def tuples(
        self,
        source: str,
        names: Sequence[str],
        partitions: Sequence[Mapping[str, Any]],
        *,
        since_ms: int | None = None,
        until_ms: int | None = None,
    ) -> Iterator[tuple[Any, ...]]:
        """Yield rows as `select` does, but these columns alone, as tuples in the order of `names`: for many rows.

        A TIME or BOOL can't be asked for, since it would have to be converted. Raises as `select` does.
        """

    @abstractmethod
    def texts(self, source: str, names: Sequence[str], partitions: Iterable[Mapping[str, Any]]) -> Iterator[str]:
        """Yield for each partition, in the given order, its rows' texts in these columns: all joined, in no order.

        Between two texts is at least one NUL character, as there may be where no text is. For searching through many:
        the texts of some hundred partitions are held at a time, and as many of their keys are taken before the first
        text is given. The partition key is one column; raises ValueError for another source or a column of another
        type, and as `select` does.
        """

    @abstractmethod
    def partitions(self, table: str) -> Iterator[Values]:
        """Yield every distinct partition key of a table, in no order. Reads the whole table's keys: for people only."""

    @abstractmethod
    def init(self) -> list[str]:
        """Make or complete the schema; return what was done, a sentence each. A second call does nothing."""

    @abstractmethod
    def check(self) -> list[Difference]:
        """Compare the live schema with what it should be; change nothing."""
