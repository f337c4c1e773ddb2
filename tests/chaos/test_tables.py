"""A table that is missing is the operator's to mend: the daemon stops, and buries nothing for it."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import pytest
from tests.chaos.audit import audit, wait_until_done
from tests.chaos.daemons import daemon
from tests.chaos.load import fleet, sent
from tests.chaos.truth import produced
from tests.real.sinks import Place
from tests.running import committed, read_topic

pytestmark = pytest.mark.real


@pytest.mark.parametrize(
    "table",
    ["performance_metrics", *(pytest.param(t, marks=pytest.mark.chaos) for t in ("voice_interactions", "error_logs"))],
)
def test_daemon_whose_table_is_missing_stops_and_the_next_one_stores_everything(
    cql_place: Place, table: str, cql_admin: Any, random: Random, tmp_path: Path
) -> None:
    place = cql_place
    keyspace = place.store.rpartition("/")[2].partition("?")[0]
    with daemon(place, tmp_path / "log") as running:
        running.wait_for("assigned: ")
        if table == "voice_interactions":
            cql_admin.execute(f'DROP MATERIALIZED VIEW "{keyspace}".interactions_by_stage')
        cql_admin.execute(f'DROP TABLE "{keyspace}".{table}')
        truth = produced(tmp_path, place, sent(fleet(random, 30)))
        assert running.process.wait(60) == 1, running.output()
        assert "voicelog-sink init" in running.output().splitlines()[-1]
    if table != "error_logs":  # a batch in which nothing failed has no row for it, and is stored
        assert committed(place.brokers, place.group, place.topics()) == {}
    assert read_topic(place.brokers, f"{place.prefix}voicelog-dlq") == []
    place.init()
    with daemon(place, tmp_path / "log-next") as running:
        wait_until_done(place)
        assert running.stop() == 0
    assert audit(place, truth, summaries_within_s=0).dead == 0
