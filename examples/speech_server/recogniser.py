"""Turns speech into text, token by token."""

import importlib.util
import re
from collections.abc import Generator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime

MODEL = "moonshine-base-en"
SAMPLE_RATE_HZ = 16_000
SHORTEST_SAMPLES = SAMPLE_RATE_HZ // 10
TOKENS_PER_SECOND = 6.5  # more than anybody says; what goes beyond it is the model repeating itself
START, END = 1, 2
BYTE_TOKEN = re.compile(rb"<0x([0-9A-F]{2})>")

Samples = npt.NDArray[np.float32]


class Recogniser:
    """Moonshine's encoder and decoder, loaded once; `hear` may be called from any thread."""

    def __init__(self) -> None:
        folder = model_folder()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # measured: more of them only make so small a model slower
        providers = ["CPUExecutionProvider"]
        self._encoder = onnxruntime.InferenceSession(folder / "encoder_model.ort", options, providers)
        self._decoder = onnxruntime.InferenceSession(folder / "decoder_model_merged.ort", options, providers)
        self._pieces = read_pieces((folder / "tokenizer.bin").read_bytes())
        self._cache_names = [i.name for i in self._decoder.get_inputs() if i.name.startswith("past_key_values")]

    def hear(self, samples: Samples) -> Generator[str]:
        """Yield the text of 16 kHz mono samples (-1 to 1) in pieces that join to the whole."""
        if len(samples) < SHORTEST_SAMPLES:
            return
        begun = False
        undecoded = b""
        for token in self._tokens(samples):
            undecoded += self._pieces[token]
            try:
                text = undecoded.decode()
            except UnicodeDecodeError:
                continue
            undecoded = b""
            yield text if begun else text.lstrip()
            begun = True

    def _tokens(self, samples: Samples) -> Generator[int]:
        """Yield the likeliest token at each step until the model says that it has heard all."""
        (heard,) = self._encoder.run(None, {"input_values": samples[np.newaxis, :]})
        cache = {name: np.zeros((0, 8, 1, 52), np.float32) for name in self._cache_names}
        token = START
        for step in range(int(len(samples) / SAMPLE_RATE_HZ * TOKENS_PER_SECOND) + 1):
            logits, *present = self._decoder.run(
                None,
                {
                    "input_ids": np.array([[token]], np.int64),
                    "encoder_hidden_states": heard,
                    "use_cache_branch": np.array([step > 0]),
                    **cache,
                },
            )
            new = zip(self._cache_names, present, strict=True)
            cache.update({name: value for name, value in new if step == 0 or ".decoder." in name})
            token = int(logits[0, -1].argmax())
            if token == END:
                return
            yield token


def model_folder() -> Path:
    """Find the model files without importing their package, whose own library needs a newer CPU."""
    spec = importlib.util.find_spec("moonshine_cpp")
    if spec is None or spec.origin is None:
        message = "the package moonshine-cpp is not installed"
        raise ModuleNotFoundError(message, name="moonshine_cpp")
    return Path(spec.origin).parent / "models" / "base-en"


def read_pieces(data: bytes) -> list[bytes]:
    """Read the tokeniser's list: each piece after its length, which takes two bytes from 128 on."""
    pieces = []
    at = 0
    while at < len(data):
        length = data[at]
        at += 1
        if length >= 128:
            length += data[at] * 128 - 128
            at += 1
        piece = data[at : at + length].replace("▁".encode(), b" ")
        byte = BYTE_TOKEN.fullmatch(piece)
        pieces.append(bytes.fromhex(byte[1].decode()) if byte else piece)
        at += length
    return pieces
