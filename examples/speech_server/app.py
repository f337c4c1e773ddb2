"""The OpenAI endpoints in front of the three models; a client that goes away ends the work done for it."""

import asyncio
import io
import json
import wave
from collections.abc import AsyncGenerator, AsyncIterator, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from typing import TypeVar

import aiohttp
import numpy as np
from aiohttp import web

from . import language_model, recogniser, voice

T = TypeVar("T")
PCM_BYTES = 4096


class SpeechServer:
    """Holds the three models, and answers requests with them; `threads` is for the language model."""

    def __init__(self, threads: int) -> None:
        self._recogniser = recogniser.Recogniser()
        self._language_model = language_model.LanguageModel(threads)
        self._voice = voice.Voice()
        self._workers = ThreadPoolExecutor(max_workers=8, thread_name_prefix="model")

    def app(self) -> web.Application:
        """Build the application; `/health` answers as soon as it is served."""
        app = web.Application(client_max_size=32 * 1024 * 1024)
        app.router.add_get("/health", self.health)
        app.router.add_get("/v1/models", self.models)
        app.router.add_post("/v1/audio/transcriptions", self.transcriptions)
        app.router.add_post("/v1/chat/completions", self.chat_completions)
        app.router.add_post("/v1/audio/speech", self.speech)
        app.cleanup_ctx.append(self._llama_client)
        return app

    async def _llama_client(self, _app: web.Application) -> AsyncIterator[None]:
        async with aiohttp.ClientSession(self._language_model.address) as self._llama:
            yield

    async def health(self, _request: web.Request) -> web.Response:
        """Say that all models are loaded; the server listens only then."""
        return web.json_response({"status": "ok"})

    async def models(self, _request: web.Request) -> web.Response:
        """List the three models under the names that requests give."""
        names = (recogniser.MODEL, language_model.MODEL, voice.MODEL)
        return web.json_response({"object": "list", "data": [{"id": n, "object": "model"} for n in names]})

    async def transcriptions(self, request: web.Request) -> web.StreamResponse:
        """Hear a WAV file; with stream=true each token is sent when it is recognised."""
        form = await request.post()
        require_model(form.get("model"), recogniser.MODEL)
        file = form.get("file")
        if not isinstance(file, web.FileField):
            raise bad_request("the field 'file' is missing: expected a WAV file")
        samples = read_wav(file.file.read())
        pieces = self._off_the_loop(self._recogniser.hear(samples))
        if form.get("stream") != "true":
            return web.json_response({"text": "".join([piece async for piece in pieces])})
        response = await stream_to(request, "text/event-stream")
        text = ""
        async with aclosing(pieces):
            async for piece in pieces:
                text += piece
                await send_event(response, {"type": "transcript.text.delta", "delta": piece})
        await send_event(response, {"type": "transcript.text.done", "text": text})
        await response.write(b"data: [DONE]\n\n")
        return response

    async def chat_completions(self, request: web.Request) -> web.StreamResponse:
        """Hand the request to llama.cpp and its answer back as it comes."""
        body = await request.json()
        require_model(body.get("model"), language_model.MODEL)
        async with self._llama.post("/v1/chat/completions", json=body) as answer:
            response = await stream_to(request, answer.content_type, answer.status)
            async for piece in answer.content.iter_any():
                await response.write(piece)
        return response

    async def speech(self, request: web.Request) -> web.StreamResponse:
        """Speak a text as 16-bit mono PCM, sent while it is being synthesised."""
        body = await request.json()
        require_model(body.get("model"), voice.MODEL)
        if body.get("response_format") != "pcm":
            raise bad_request(f"response_format is {body.get('response_format')!r}: only 'pcm' is spoken here")
        if body.get("voice") not in voice.VOICES:
            raise bad_request(f"voice is {body.get('voice')!r}: expected one of {', '.join(voice.VOICES)}")
        response = await stream_to(request, "audio/pcm")
        async with aclosing(self._off_the_loop(self._voice.speak(body["input"], body["voice"]))) as pieces:
            async for piece in pieces:
                await response.write(piece)
        return response

    async def _off_the_loop(self, items: Generator[T]) -> AsyncGenerator[T]:
        """Step through a computing generator in a worker thread, one item at a time."""

        def step() -> asyncio.Future[T | None]:
            return asyncio.get_running_loop().run_in_executor(self._workers, next, items, None)

        running = step()
        try:
            while (item := await asyncio.shield(running)) is not None:
                yield item
                running = step()
        finally:
            await asyncio.wait([running])
            items.close()


def read_wav(data: bytes) -> recogniser.Samples:
    """Read a 16-bit WAV file of any rate as what the recogniser takes: 16 kHz mono from -1 to 1."""
    try:
        with wave.open(io.BytesIO(data)) as file:
            rate, channels, width = file.getframerate(), file.getnchannels(), file.getsampwidth()
            frames = file.readframes(file.getnframes())
    except (wave.Error, EOFError) as error:
        raise bad_request(f"the file is not a WAV file: {error}") from error
    if width != 2:
        raise bad_request(f"the file has {width * 8} bits a sample: expected 16")
    if not frames:
        return np.zeros(0, np.float32)
    samples = np.frombuffer(frames, "<i2").reshape(-1, channels).mean(axis=1) / 32768
    at = np.arange(0, len(samples), rate / recogniser.SAMPLE_RATE_HZ)
    return np.asarray(np.interp(at, np.arange(len(samples)), samples), np.float32)


async def stream_to(request: web.Request, content_type: str, status: int = 200) -> web.StreamResponse:
    """Begin an answer whose body follows in pieces."""
    response = web.StreamResponse(status=status, headers={"Content-Type": content_type})
    await response.prepare(request)
    return response


async def send_event(response: web.StreamResponse, event: dict[str, str]) -> None:
    """Send one server-sent event."""
    await response.write(b"data: " + json.dumps(event).encode() + b"\n\n")


def require_model(asked: object, served: str) -> None:
    """Refuse a request for another model than the one there is."""
    if asked != served:
        text = error_body(f"The model {asked!r} does not exist: {served!r} is served here.", "model_not_found")
        raise web.HTTPNotFound(text=text, content_type="application/json")


def bad_request(message: str) -> web.HTTPBadRequest:
    """Make the answer that says what is wrong with a request, the way the OpenAI API words it."""
    return web.HTTPBadRequest(text=error_body(message, "invalid_value"), content_type="application/json")


def error_body(message: str, code: str) -> str:
    """Word an error as the OpenAI API does."""
    return json.dumps({"error": {"message": message, "type": "invalid_request_error", "param": None, "code": code}})
