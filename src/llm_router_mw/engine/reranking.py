"""From a query and a document to the tokens that a reranker scores."""

from __future__ import annotations

import re

from llm_router_mw.engine.model import LoadedModel
from llm_router_mw.engine.native import llama
from llm_router_mw.errors import InvalidRequestError, NotSupportedError

_TEMPLATE_NAME = b"rerank"
_NO_TOKEN = -1
_SLOT = re.compile(r"\{(query|document)\}")


def not_a_reranker() -> NotSupportedError:
    """Return the refusal of an instance that cannot score documents."""
    return NotSupportedError(
        "this model does not support reranking as it is loaded; set its load option pooling to "
        "'rank', or ask another model"
    )


class PairReader:
    """Writes pairs as the model was trained on them.

    That is the template named ``rerank`` in its file, if there is one, and otherwise both texts
    parted by the special tokens that its tokenizer adds.
    """

    def __init__(self, model: LoadedModel) -> None:
        self._vocab = model.vocab
        template: bytes | None = llama.llama_model_chat_template(model.pointer, _TEMPLATE_NAME)
        self._template = (template or b"").decode(errors="replace")
        self._marks = _Marks(model)

    @property
    def parses(self) -> bool:
        """Whether special tokens are found in the texts."""
        return bool(self._template)

    def read(self, query: str, document: str) -> list[int]:
        """Return the tokens of the pair.

        Raises:
            InvalidRequestError: one is no valid text.
        """
        if self._template:
            texts = {"query": query, "document": document}
            # In one pass: a query may hold the word "{document}".
            text = _SLOT.sub(lambda slot: texts[slot[1]], self._template)
            return self._tokenize(text, "documents", parse=True)
        marks = self._marks
        # Special tokens are not looked for: a document must not be able to end itself.
        first = self._tokenize(query, "query")
        second = self._tokenize(document, "documents")
        return [*marks.before, *first, *marks.between, *second, *marks.after]

    def _tokenize(self, text: str, param: str, *, parse: bool = False) -> list[int]:
        try:
            return self._vocab.tokenize(text, add=False, parse=parse)
        except InvalidRequestError as error:
            raise InvalidRequestError(f"{param}: {error.message}", param=param) from error


class _Marks:
    """The special tokens around a query and a document, by llama.cpp's rules."""

    def __init__(self, model: LoadedModel) -> None:
        vocab = model.vocab.pointer
        sep = llama.llama_vocab_sep(vocab)
        eos = llama.llama_vocab_eos(vocab)
        ends = [sep if eos == _NO_TOKEN else eos] if llama.llama_vocab_get_add_eos(vocab) else []
        seps = [sep] if llama.llama_vocab_get_add_sep(vocab) else []
        self.before = [llama.llama_vocab_bos(vocab)] if model.vocab.adds_bos else []
        self.between = [*ends, *seps]
        self.after = ends
