"""Turns text into speech, in pieces while it is being synthesised."""

import ctypes
import queue
import threading
from collections.abc import Generator

import espeakng_loader

MODEL = "espeak-ng"
VOICES = {"alloy": "en-us", "onyx": "en-gb+m3", "nova": "en-us+f3"}
"""OpenAI's names, and the voices of espeak-ng that stand in for them."""
WORDS_PER_MINUTE = 165

SYNCHRONOUS = 2
UTF8 = 1
RATE_PARAMETER = 1
GO_ON, ABORT = 0, 1
SYNTH_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


class Voice:
    """espeak-ng, loaded once; `speak` may be called from any thread and speaks for one at a time."""

    def __init__(self) -> None:
        self._espeak = ctypes.CDLL(espeakng_loader.get_library_path())
        data = espeakng_loader.get_data_path().encode()
        self.sample_rate_hz: int = self._espeak.espeak_Initialize(SYNCHRONOUS, 0, data, 0)
        if self.sample_rate_hz <= 0:
            message = f"espeak-ng did not start with the data in {data.decode()!r}"
            raise RuntimeError(message)
        self._one_at_a_time = threading.Lock()

    def speak(self, text: str, voice: str) -> Generator[bytes]:
        """Yield 16-bit mono PCM of the text; closing the iterator ends the synthesis."""
        pieces: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        unwanted = threading.Event()
        threading.Thread(target=self._synthesise, args=(text, voice, pieces, unwanted), daemon=True).start()
        try:
            while (piece := pieces.get()) is not None:
                yield piece
        finally:
            unwanted.set()

    def _synthesise(
        self, text: str, voice: str, pieces: "queue.SimpleQueue[bytes | None]", unwanted: threading.Event
    ) -> None:
        @SYNTH_CALLBACK
        def take(samples: "ctypes._Pointer[ctypes.c_short]", count: int, _events: int | None) -> int:
            if samples and count:
                pieces.put(ctypes.string_at(samples, count * 2))
            return ABORT if unwanted.is_set() else GO_ON

        with self._one_at_a_time:
            encoded = text.encode()
            self._espeak.espeak_SetSynthCallback(take)
            self._espeak.espeak_SetVoiceByName(VOICES[voice].encode())
            self._espeak.espeak_SetParameter(RATE_PARAMETER, WORDS_PER_MINUTE, 0)
            self._espeak.espeak_Synth(encoded, ctypes.c_size_t(len(encoded) + 1), 0, 0, 0, UTF8, None, None)
        pieces.put(None)
