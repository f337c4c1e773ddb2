"""Whatever stands in the topics: good events are stored, everything else is in the dead letters with its reason."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from tests.chaos.audit import audit, wait_until_done
from tests.chaos.daemons import daemon
from tests.chaos.fuzz import Fuzz
from tests.chaos.load import fleet, sent
from tests.chaos.truth import produced
from tests.real.sinks import Place

pytestmark = pytest.mark.real
CODECS = ("none", "gzip", "snappy", "lz4", "zstd")


@pytest.mark.parametrize(
    ("place", "count"),
    [
        pytest.param("cql", 2_000, id="cql-2000"),
        pytest.param("cql", 50_000, id="cql-50000", marks=pytest.mark.chaos),
        pytest.param("sqlite", 50_000, id="sqlite-50000", marks=pytest.mark.chaos),
    ],
    indirect=["place"],
)
@pytest.mark.timeout(900)
def test_fuzz_among_good_events(place: Place, count: int, random: Random, tmp_path: Path) -> None:
    messages = [*sent(fleet(random, 20 + count // 1000)), *Fuzz(random).messages(count)]
    random.shuffle(messages)
    truth = produced(tmp_path, place, messages, CODECS)
    with daemon(place, tmp_path / "log", batch_max_events=2_000) as running:
        wait_until_done(place, 30 + count / 100)
        assert running.stop() == 0
    found = audit(place, truth, summaries_within_s=0)
    assert found.repeated_letters == 0
    assert "Traceback" not in running.output()
