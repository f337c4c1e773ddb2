"""The bot's end of the telephone line: plays speech at the line's pace and records both sides of the call."""

import asyncio
import wave
from pathlib import Path

import numpy as np
import numpy.typing as npt

from speech import Speech

BUFFER_S = 6.0


class Player:
    """Plays 16-bit mono PCM; `speed` is how much faster than real time the line runs."""

    def __init__(self, sample_rate_hz: int, speed: float) -> None:
        self._bytes_per_s = sample_rate_hz * 2 * speed
        self._speed = speed
        self._plays_until = 0.0
        self._taken_bytes = 0
        self.speaking = asyncio.Event()
        """Set from the first PCM of an answer until all of it was played or it was stopped."""
        self.recording = Recording(sample_rate_hz)

    async def play(self, pcm: bytes) -> None:
        """Take PCM for playback; waits while the line's buffer is full."""
        now = asyncio.get_running_loop().time()
        self._plays_until = max(self._plays_until, now) + len(pcm) / self._bytes_per_s
        self._taken_bytes += len(pcm)
        self.recording.bot(pcm)
        self.speaking.set()
        await asyncio.sleep(self._plays_until - BUFFER_S / self._speed - now)

    async def finish(self) -> None:
        """Wait until everything was played."""
        await asyncio.sleep(self._plays_until - asyncio.get_running_loop().time())
        self._end()

    def stop(self) -> float:
        """Fall silent at once, and throw away what was not played; return how much of the answer was, milliseconds."""
        unplayed_s = max(0.0, self._plays_until - asyncio.get_running_loop().time())
        unplayed_bytes = int(unplayed_s * self._bytes_per_s)
        self.recording.cut(unplayed_bytes // 2)
        played_s = (self._taken_bytes - unplayed_bytes) / 2 / self.recording.sample_rate_hz
        self._end()
        return max(0.0, played_s) * 1000

    def _end(self) -> None:
        self._plays_until = 0.0
        self._taken_bytes = 0
        self.speaking.clear()


class Recording:
    """Both sides of a call, without the pauses between: the caller on the left, the bot on the right."""

    def __init__(self, sample_rate_hz: int) -> None:
        self.sample_rate_hz = sample_rate_hz
        self._sides: list[npt.NDArray[np.int16]] = []

    def caller(self, speech: Speech) -> None:
        """Add what the caller said."""
        at = np.arange(0, len(speech.samples), speech.sample_rate_hz / self.sample_rate_hz)
        left = np.interp(at, np.arange(len(speech.samples)), speech.samples).astype(np.int16)
        self._sides.append(np.stack([left, np.zeros_like(left)], axis=1))

    def bot(self, pcm: bytes) -> None:
        """Add what the bot says."""
        right = np.frombuffer(pcm, "<i2")
        self._sides.append(np.stack([np.zeros_like(right), right], axis=1))

    def cut(self, samples: int) -> None:
        """Take the last samples out again."""
        whole = np.concatenate(self._sides)
        self._sides = [whole[: len(whole) - samples]]

    def save(self, path: Path) -> None:
        """Write the call as a stereo WAV file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with wave.open(str(path), "wb") as wav:
            wav.setnchannels(2)
            wav.setsampwidth(2)
            wav.setframerate(self.sample_rate_hz)
            wav.writeframes(np.concatenate(self._sides).astype("<i2").tobytes())
