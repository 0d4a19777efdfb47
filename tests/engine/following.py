"""Texts against grammars, by llama.cpp's own judgement."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from llm_router_mw.engine.grammar import Grammar
from llm_router_mw.engine.model import load_model
from llm_router_mw.engine.native import log
from llm_router_mw.engine.vocab import Vocab
from llm_router_mw.types import LoadOptions
from tests.support.tiny_models import EOS


class Judge:
    """Tells which texts a grammar allows, with the vocabulary of a tiny model."""

    def __init__(self, vocab: Vocab) -> None:
        self.vocab = vocab

    def allows(self, text: str, grammar: str) -> bool:
        """Tell whether *text* is all of what *grammar* asks for."""
        follower = Grammar(grammar, "grammar", self.vocab)
        try:
            for token in self.vocab.tokenize(text, add=False, parse=False):
                if not follower.allows(token):
                    return False
                follower.accept(token)
            return follower.allows(EOS)
        finally:
            follower.close()


@contextmanager
def judge(path: Path) -> Iterator[Judge]:
    """Load the vocabulary of the model at *path*."""
    log.install()
    model = load_model(str(path), LoadOptions(), lambda fraction: True)
    yield Judge(model.vocab)
    model.close()
