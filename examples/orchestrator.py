"""A restaurant's phone bot: hears, thinks and speaks, and voicelog times every part of every call.

    python orchestrator.py                      with models on this machine and no network, see README.md
    OPENAI_BASE_URL=https://api.openai.com/v1 OPENAI_API_KEY=... python orchestrator.py

The callers are simulated: one is the recording of a human, one interrupts the bot, one wants a table while
the booking system hangs. The sound of each call is written to out/<session>.wav.
"""

import argparse
import asyncio
import io
import json
import os
import sys
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing
from datetime import datetime
from pathlib import Path
from typing import Any

import voicelog
from streams import one_ahead, sentences_of

HERE = Path(__file__).parent
try:
    import openai
    from openai.types.chat import ChatCompletionMessageParam

    from caller import Call, Caller, Utterance, simulated_calls
    from player import Player
    from speech_server.child import SpeechServerError, running
except ModuleNotFoundError as missing:
    sys.exit(
        f"The example needs the package {missing.name}, which is not installed:\n"
        f"    {sys.executable} -m pip install -r {HERE / 'requirements.txt'}\n"
        f"    {sys.executable} -m pip install --no-deps -r {HERE / 'requirements-no-deps.txt'}"
    )

REMOTE = "OPENAI_BASE_URL" in os.environ
PROVIDER = "openai" if REMOTE else "local"
STT_MODEL = os.environ.get("STT_MODEL", "gpt-4o-mini-transcribe" if REMOTE else "moonshine-base-en")
LLM_MODEL = os.environ.get("LLM_MODEL", "gpt-4o-mini" if REMOTE else "smollm2-135m-instruct")
TTS_MODEL = os.environ.get("TTS_MODEL", "gpt-4o-mini-tts" if REMOTE else "espeak-ng")
TTS_RATE = int(os.environ.get("TTS_RATE", "24000" if REMOTE else "22050"))
TTS_VOICE = "alloy"

VARIANTS: dict[str, dict[str, Any]] = {
    "a": {"temperature": 0.2, "max_tokens": 60, "seed": 7},
    "b": {"temperature": 0.8, "max_tokens": 100, "seed": 7},
}
REWRITE = "Rewrite the sentence so that it sounds friendly."
APOLOGY = "I am sorry, our booking system does not answer at the moment. What else can I do for you?"

client: openai.AsyncOpenAI


# The parts of the pipeline


async def hear(utterance: Utterance) -> str:
    """Recognise what the caller said."""
    with voicelog.stage("stt", provider=PROVIDER, model=STT_MODEL) as stt:
        wav = ("utterance.wav", utterance.speech.as_wav())
        text = ""
        async for event in await client.audio.transcriptions.create(file=wav, model=STT_MODEL, stream=True):
            if event.type == "transcript.text.delta":
                stt.mark_first()
            elif event.type == "transcript.text.done":
                text = event.text
        stt.set(transcript=text, language="en", audio_ms=utterance.speech.duration_ms)
    return text


@voicelog.stage("tool", provider="calendar")
async def opening_hours() -> str:
    """Look up when the restaurant is open; the pause stands for the calendar's."""
    await asyncio.sleep(0.05)
    return "We are open on Saturday from nine in the morning until eleven at night."


@voicelog.stage("tool", provider="booking")
async def book_table() -> str:
    """Ask for a table; today the booking system hangs."""
    await asyncio.sleep(0.3)
    raise TimeoutError("the booking system did not answer within 300 ms")


@voicelog.stage("llm", provider=PROVIDER, model=LLM_MODEL)
async def think(messages: list[ChatCompletionMessageParam], parameters: dict[str, Any]) -> AsyncGenerator[str]:
    """Yield the language model's answer, token by token."""
    llm = voicelog.current_stage()
    llm.set(prompt=messages, parameters=parameters)
    said = ""
    try:
        async with await client.chat.completions.create(
            model=LLM_MODEL,
            messages=messages,
            stream=True,
            stream_options={"include_usage": True},
            **parameters,
        ) as chunks:
            async for chunk in chunks:
                if chunk.usage:
                    llm.usage(chunk.usage)
                for choice in chunk.choices:
                    if choice.finish_reason:
                        llm.set(finish_reason=choice.finish_reason)
                    if choice.delta.content:
                        said += choice.delta.content
                        yield choice.delta.content
    finally:
        llm.set(response=said)


@voicelog.stage("tts", provider=PROVIDER, model=TTS_MODEL, voice=TTS_VOICE, sample_rate_hz=TTS_RATE)
async def speak(sentence: str) -> AsyncGenerator[bytes]:
    """Yield the sound of a sentence, a tenth of a second at a time."""
    tts = voicelog.current_stage()
    tts.set(text=sentence, characters=len(sentence))
    size = 0
    try:
        async with client.audio.speech.with_streaming_response.create(
            model=TTS_MODEL, voice=TTS_VOICE, input=sentence, response_format="pcm"
        ) as response:
            async for pcm in response.iter_bytes(TTS_RATE // 10 * 2):
                size += len(pcm)
                yield pcm
    finally:
        tts.set(bytes=size, audio_ms=size / 2 / TTS_RATE * 1000)


# What joins them


async def reply(heard: str, parameters: dict[str, Any]) -> AsyncGenerator[str]:
    """Yield the answer to what was heard, sentence by sentence."""
    messages: list[ChatCompletionMessageParam] = [{"role": "user", "content": heard}]
    try:
        if "open" in heard.lower():
            messages = [
                {"role": "system", "content": REWRITE},
                {"role": "user", "content": await opening_hours()},
            ]
        elif "table" in heard.lower():
            messages.append({"role": "system", "content": await book_table()})
    except TimeoutError:
        yield APOLOGY
        return
    first = True
    async with aclosing(sentences_of(think(messages, parameters))) as sentences:
        async for sentence in sentences:
            if first:
                voicelog.current_turn().mark("llm_first_sentence")
            first = False
            yield sentence


async def answer(heard: str, parameters: dict[str, Any], player: Player) -> None:
    """Speak each sentence while the one before is being played and the next one is being thought of."""
    async with aclosing(one_ahead(reply(heard, parameters))) as sentences:
        async for sentence in sentences:
            print(f"    bot     {sentence}")
            async with aclosing(speak(sentence)) as sound:
                async for pcm in sound:
                    if not player.speaking.is_set():
                        voicelog.current_turn().mark("playback_start")
                    await player.play(pcm)
    await player.finish()
    voicelog.current_turn().mark("playback_end")


async def take_turn(utterance: Utterance, parameters: dict[str, Any], caller: Caller, player: Player) -> None:
    """Answer what the caller said, until the caller interrupts."""
    with voicelog.turn() as turn:
        turn.mark("user_speech_start", ago_ms=utterance.began_ms_ago)
        turn.mark("user_speech_end", ago_ms=utterance.ended_ms_ago, anchor="vad")
        heard = await hear(utterance)
        turn.mark("turn_committed")
        print(f"    caller  {heard}")
        answering = asyncio.create_task(answer(heard, parameters, player))
        interrupting = asyncio.create_task(caller.speaks_over(player))
        await asyncio.wait([answering, interrupting], return_when=asyncio.FIRST_COMPLETED)
        interrupting.cancel()
        if not answering.done():
            turn.interrupt()
            turn.played(audio_ms=player.stop())
            turn.mark("audio_stopped")
            answering.cancel()
            print("            (is interrupted)")
        await asyncio.wait([answering])
        if not answering.cancelled():
            answering.result()


async def take_call(call: Call, out: Path, speed: float) -> None:
    """Talk with one caller until they hang up."""
    name = f"{call.name}-{datetime.now():%m%d-%H%M%S}"
    variant = voicelog.choose_variant("temperature", {"a": 1, "b": 1}, key=call.name)  # who calls again gets it again
    print(f"\n{name}, variant {variant}")
    caller, player = Caller(call.says, speed), Player(TTS_RATE, speed)
    with voicelog.session(name, variant=variant) as session:
        while utterance := await caller.listen():
            player.recording.caller(utterance.speech)
            await take_turn(utterance, VARIANTS[variant], caller, player)
        session.disconnected("user_hangup")
    player.recording.save(out / f"{name}.wav")
    print(f"    sound   {out / name}.wav")


# The demonstration


async def main(options: argparse.Namespace) -> None:
    """Take a few simulated calls."""
    global client
    async with AsyncExitStack() as stack:
        if REMOTE:
            address = os.environ["OPENAI_BASE_URL"]
        else:
            print("starting the models ...")
            address = await stack.enter_async_context(running())
        key = os.environ.get("OPENAI_API_KEY", "none")
        client = await stack.enter_async_context(openai.AsyncOpenAI(base_url=address, api_key=key, timeout=60))
        for call in await simulated_calls(client, TTS_MODEL, TTS_RATE):
            await take_call(call, options.out, options.speed)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A voice bot and its callers, timed by voicelog.")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for the WAV files")
    parser.add_argument("--speed", type=float, default=4, help="how much faster than real time people speak")
    parser.add_argument("--stats-file", type=Path, help="write voicelog.stats() here as JSON")
    options = parser.parse_args()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)
    voicelog.configure(service="front-desk")
    try:
        asyncio.run(main(options))
    except KeyboardInterrupt:
        sys.exit(130)
    except (openai.OpenAIError, SpeechServerError) as error:
        where = os.environ.get("OPENAI_BASE_URL", "the speech server on this machine")
        sys.exit(f"{where} did not do its part: {error}")
    voicelog.shutdown()
    stats = json.dumps(voicelog.stats())
    print(f"\nvoicelog: {stats}", file=sys.stderr)
    if options.stats_file:
        options.stats_file.write_text(stats)
