"""A piece of speech, as the callers say it and as recognisers take it."""

import io
import wave
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Speech:
    """16-bit mono samples, and after how much of the bot's speech a caller breaks in with them."""

    samples: npt.NDArray[np.int16]
    sample_rate_hz: int
    interrupts_after_s: float | None = None

    @property
    def duration_ms(self) -> float:
        """Length in milliseconds."""
        return len(self.samples) / self.sample_rate_hz * 1000

    def as_wav(self) -> bytes:
        """Return it as a WAV file."""
        file = io.BytesIO()
        with wave.open(file, "wb") as wav:
            wav.setnchannels(1)
            wav.setsampwidth(2)
            wav.setframerate(self.sample_rate_hz)
            wav.writeframes(self.samples.astype("<i2").tobytes())
        return file.getvalue()
