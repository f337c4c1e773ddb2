"""Joins a stream of tokens to sentences, and lets what makes them work while they are spoken."""

import asyncio
import re
from collections.abc import AsyncGenerator
from contextlib import aclosing

SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\s*\n\s*")


async def sentences_of(tokens: AsyncGenerator[str]) -> AsyncGenerator[str]:
    """Join tokens to sentences, each as soon as it is whole."""
    text = ""
    async with aclosing(tokens):
        async for token in tokens:
            *sentences, text = SENTENCE_END.split(text + token)
            for sentence in filter(None, sentences):
                yield sentence
    if text.strip():
        yield text


async def one_ahead(items: AsyncGenerator[str]) -> AsyncGenerator[str]:
    """Yield each item while the next one is being made; no more, since an interruption throws them away."""
    following = asyncio.ensure_future(anext(items, None))
    try:
        while (item := await following) is not None:
            following = asyncio.ensure_future(anext(items, None))
            yield item
    finally:
        following.cancel()
        await asyncio.wait([following])
        await items.aclose()
