"""The contenders: one stage with four fields, as each library's own documentation writes it.

Each is set up against a server on this machine that takes everything at once. `setup(kafka, http)` returns the
operation and a flush that waits until what was measured has been sent, and returns how many events were lost where
the contender can tell.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

Operation = Callable[[], None]
Flush = Callable[[], Any]
Setup = Callable[[str, str], tuple[Operation, Flush]]

TEXT = "i would like a table for two at seven on friday evening please"


def voicelog(kafka: str, http: str) -> tuple[Operation, Flush]:
    """Time a stage with everything switched on as it is by default, inside a session and a turn."""
    import voicelog

    voicelog.configure(brokers=kafka, service="bench", queue_max_messages=1_000_000)
    voicelog.session("bench-call", variant="a").start().start_turn()

    def operation() -> None:
        with voicelog.stage("stt", provider="deepgram", model="nova-3") as stt:
            stt.set(transcript=TEXT, confidence=0.93)

    def flush() -> None:
        left, stats = voicelog.flush(60), voicelog.stats()
        assert left == 0, stats
        assert not stats["dropped"], stats
        assert not stats["failed"], stats

    return operation, flush


def voicelog_pure(kafka: str, http: str) -> tuple[Operation, Flush]:
    """Time the same without the C extension."""
    os.environ["VOICELOG_PURE_PYTHON"] = "1"
    return voicelog(kafka, http)


def voicelog_off(kafka: str, http: str) -> tuple[Operation, Flush]:
    """Run the same code without configure()."""
    import voicelog

    def operation() -> None:
        with voicelog.stage("stt", provider="deepgram", model="nova-3") as stt:
            stt.set(transcript=TEXT, confidence=0.93)

    return operation, lambda: None


def bare_produce(kafka: str, http: str) -> tuple[Operation, Flush]:
    """Hand a ready-made message of the same size to librdkafka, with voicelog's settings: the floor."""
    from confluent_kafka import Producer

    producer = Producer({
        "bootstrap.servers": kafka, "acks": "all", "enable.idempotence": True, "linger.ms": 20,
        "compression.type": "lz4", "queue.buffering.max.messages": 1_000_000, "delivery.report.only.error": True,
    })  # fmt: skip
    value = json.dumps({"transcript": TEXT, "padding": "x" * 300}).encode()

    def operation() -> None:
        producer.produce("stt-results", value, b"bench-call")

    return operation, lambda: producer.flush(60)


def opentelemetry(kafka: str, http: str) -> tuple[Operation, Flush]:
    """Open a span of the OpenTelemetry SDK: batch processor, OTLP over HTTP."""
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    started = exported = 0

    class CountingExporter(OTLPSpanExporter):
        def export(self, spans: Any) -> Any:
            nonlocal exported
            exported += len(spans)
            return super().export(spans)

    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(CountingExporter(endpoint=f"{http}/v1/traces")))
    trace.set_tracer_provider(provider)
    tracer = trace.get_tracer("bench")

    def operation() -> None:
        nonlocal started
        started += 1
        with tracer.start_as_current_span("stt") as span:
            span.set_attribute("gen_ai.provider.name", "deepgram")
            span.set_attribute("gen_ai.request.model", "nova-3")
            span.set_attribute("transcript", TEXT)
            span.set_attribute("confidence", 0.93)

    def flush() -> int:
        provider.force_flush(60_000)
        return started - exported

    return operation, flush


def nothing(kafka: str, http: str) -> tuple[Operation, Flush]:
    """Do nothing: what the loop itself takes."""
    return lambda: None, lambda: None


def langfuse(kafka: str, http: str) -> tuple[Operation, Flush]:
    """Open an observation of Langfuse."""
    from langfuse import Langfuse

    client = Langfuse(public_key="pk-lf-bench", secret_key="sk-lf-bench", base_url=http)

    def operation() -> None:
        with client.start_as_current_observation(as_type="generation", name="stt", model="nova-3") as observation:
            observation.update(output=TEXT, metadata={"provider": "deepgram", "confidence": 0.93})

    return operation, client.flush


def logfire(kafka: str, http: str) -> tuple[Operation, Flush]:
    """Open a span of Logfire."""
    import logfire

    logfire.configure(
        send_to_logfire=True,
        token="bench",
        console=False,
        inspect_arguments=False,
        advanced=logfire.AdvancedOptions(base_url=http),
    )

    def operation() -> None:
        with logfire.span("stt", provider="deepgram", model="nova-3") as span:
            span.set_attribute("transcript", TEXT)
            span.set_attribute("confidence", 0.93)

    return operation, lambda: logfire.force_flush(60_000)


def sentry(kafka: str, http: str) -> tuple[Operation, Flush]:
    """Open a span of Sentry, in a transaction of a hundred spans, as one call has."""
    import sentry_sdk

    dsn = http.replace("http://", "http://bench@") + "/1"
    sentry_sdk.init(dsn=dsn, traces_sample_rate=1.0, default_integrations=False, auto_enabling_integrations=False)
    opened: list[Any] = []

    def operation() -> None:
        if not opened or opened[-1][1] >= 100:
            if opened:
                opened.pop()[0].__exit__(None, None, None)
            transaction = sentry_sdk.start_transaction(op="call", name="call")
            transaction.__enter__()
            opened.append([transaction, 0])
        opened[-1][1] += 1
        with sentry_sdk.start_span(op="stt", name="stt") as span:
            span.set_data("provider", "deepgram")
            span.set_data("model", "nova-3")
            span.set_data("transcript", TEXT)
            span.set_data("confidence", 0.93)

    def flush() -> None:
        if opened:
            opened.pop()[0].__exit__(None, None, None)
        sentry_sdk.flush(60)

    return operation, flush


CONTENDERS: dict[str, Setup] = {
    "voicelog": voicelog,
    "opentelemetry": opentelemetry,
    "sentry": sentry,
    "langfuse": langfuse,
    "logfire": logfire,
    "bare produce()": bare_produce,
    "voicelog, in Python": voicelog_pure,
    "voicelog, not configured": voicelog_off,
    "nothing": nothing,
}
NOTHING = "nothing"

os.environ.setdefault("LOGFIRE_IGNORE_NO_CONFIG", "1")
