"""Plays the people who call: their speech comes down the line frame by frame, as a telephone's would."""

import asyncio
import importlib.util
import wave
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import openai

from player import Player
from speech import Speech

VOICE = "onyx"
FRAME_S = 0.02
END_OF_SPEECH_S = 1.3  # the speaker of the recording pauses for almost as long
KEPT_SILENCE_S = 0.3
SILENCE_RMS = 200  # of 16-bit samples


@dataclass(frozen=True)
class Utterance:
    """What was heard from the first sound to the silence after the last, and how long ago these were."""

    speech: Speech
    began_ms_ago: float
    ended_ms_ago: float


@dataclass(frozen=True)
class Call:
    """One simulated call."""

    name: str
    says: list[Speech]


class Caller:
    """Says one thing after another; `speed` is how much faster than real time the line runs."""

    def __init__(self, says: list[Speech], speed: float) -> None:
        self._says = list(says)
        self._speed = speed

    async def listen(self) -> Utterance | None:
        """Wait until the caller has said something and fallen silent; None when the caller has hung up."""
        if not self._says:
            return None
        speech = self._says.pop(0)
        clock = asyncio.get_running_loop().time
        connected = clock()
        rate = speech.sample_rate_hz
        size = int(rate * FRAME_S)
        samples = np.concatenate([speech.samples, np.zeros(int(rate * END_OF_SPEECH_S) + size, np.int16)])
        began = ended = quiet_from = 0.0
        for at in range(size, len(samples), size):
            await asyncio.sleep(connected + at / rate / self._speed - clock())
            if np.sqrt(np.mean(np.square(samples[at - size : at], dtype=np.float64))) > SILENCE_RMS:
                began, ended, quiet_from = began or clock(), clock(), at / rate
            elif began and at / rate - quiet_from > END_OF_SPEECH_S:
                break
        heard = Speech(samples[: int((quiet_from + KEPT_SILENCE_S) * rate)], rate)
        return Utterance(heard, (clock() - began) * 1000, (clock() - ended) * 1000)

    async def speaks_over(self, player: Player) -> None:
        """Return when the caller begins to speak although the bot does; for most callers this is never."""
        after_s = self._says[0].interrupts_after_s if self._says else None
        await player.speaking.wait()
        await asyncio.sleep(float("inf") if after_s is None else after_s / self._speed)


async def simulated_calls(client: openai.AsyncOpenAI, tts_model: str, sample_rate_hz: int) -> list[Call]:
    """Prepare three calls; the callers speak with another voice of the bot's synthesiser."""

    async def spoken(sentence: str, interrupts_after_s: float | None = None) -> Speech:
        sound = await client.audio.speech.create(model=tts_model, voice=VOICE, input=sentence, response_format="pcm")
        return Speech(np.frombuffer(sound.content, "<i2"), sample_rate_hz, interrupts_after_s)

    hours = await spoken("What time do you open on Saturday?")
    dinner = await spoken("What do you recommend for dinner tonight?")
    story = await spoken("Please tell me a long story about the sea.")
    stop = await spoken("Sorry to interrupt. What time do you open on Saturday?", interrupts_after_s=4)
    table = await spoken("Do you have a free table this evening?")
    return [
        Call("human", [*human_recording(), hours]),
        Call("story", [dinner, story, stop]),
        Call("table", [table, hours]),
    ]


def human_recording() -> list[Speech]:
    """Return ten seconds of a human voice from the recogniser's package; nothing where it is missing."""
    spec = importlib.util.find_spec("moonshine_cpp")
    if spec is None or spec.origin is None:
        return []
    with wave.open(str(Path(spec.origin).parent / "test-data" / "beckett.wav")) as wav:
        return [Speech(np.frombuffer(wav.readframes(wav.getnframes()), "<i2"), wav.getframerate())]
