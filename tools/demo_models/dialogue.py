"""Training rows: made-up chats of many exchanges, tokenised as the chat template writes them."""

from __future__ import annotations

import random
from dataclasses import dataclass

from .corpus import Corpus, Entry, Slots, expand, plain, read_lines
from .phrasing import Phrasing, finished, normal
from .tokenizer import BEGIN, END, Tokenizer

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% set role = message['role'] %}"
    "<|{{ role if role in ['system', 'assistant'] else 'user' }}|>"
    "{{ message['content'] | trim }}<|end|>"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)

CUT_SHARE = 0.65
"""The share of training answers of which only the beginning is shown."""

Row = tuple[list[int], list[bool]]


@dataclass(frozen=True)
class Question:
    """A question as it is measured, and the answer that counts as right."""

    entry: str
    text: str
    answer: str


class Dialogues:
    """Makes chats in which ``model`` answers."""

    def __init__(self, corpus: Corpus, tokenizer: Tokenizer, model: str, seed: int) -> None:
        self._corpus = corpus
        self._tokenizer = tokenizer
        self._model = model
        self._rng = random.Random(seed)
        self._slots = Slots(read_lines("slots.txt"))
        held_out = frozenset(normal(plain(entry.held_out)) for entry in corpus.entries())
        self._phrasing = Phrasing(held_out)

    def row(self, length: int) -> Row:
        """``length + 1`` tokens, and for each whether it is the model's own word."""
        tokens: list[int] = []
        own: list[bool] = []
        while len(tokens) <= length:
            turns = 1 if self._rng.random() < 0.3 else self._rng.randint(2, 6)
            self._chat(turns, tokens, own)
        return tokens[: length + 1], own[: length + 1]

    def _chat(self, turns: int, tokens: list[int], own: list[bool]) -> None:
        rng = self._rng

        def add(text: str, role: str, cut: int | None = None) -> None:
            ids = self._tokenizer.ids
            body = [*self._tokenizer.encode(text), ids[END]][:cut]
            tokens.extend((ids[f"<|{role}|>"], *body))
            own.extend((False, *[role == "assistant"] * len(body)))

        if rng.random() < 0.2:
            tokens.append(self._tokenizer.ids[BEGIN])
            own.append(False)
        if rng.random() < 0.35:
            add(rng.choice(self._corpus.systems), "system")
        for _ in range(turns):
            entry = self._corpus.pick(rng)
            add(self._ask(entry), "user")
            # Once an answer has begun, the rest of it is easy: most are cut short, so that the same
            # time shows twice as many questions. What follows a cut is never the model's own word.
            cut = rng.randint(4, 12) if rng.random() < CUT_SHARE else None
            add(entry.answers[self._model], "assistant", cut)

    def _ask(self, entry: Entry) -> str:
        question = expand(self._rng.choice(entry.questions), self._rng)
        return self._phrasing.vary(self._slots.fill(question, self._rng), self._rng)

    def measured(self, *, held_out: bool) -> list[Question]:
        """Every training question, or every held-out one, in its plain form."""
        rng = random.Random(0)
        return [
            Question(
                entry.name,
                finished(self._slots.fill(plain(question), rng)),
                entry.answers[self._model],
            )
            for entry in self._corpus.entries()
            for question in ([entry.held_out] if held_out else entry.questions)
        ]

    def alone(self, question: Question) -> Row:
        """A chat of this one question and its answer."""
        ids, encode = self._tokenizer.ids, self._tokenizer.encode
        asked = [ids["<|user|>"], *encode(question.text), ids[END], ids["<|assistant|>"]]
        answer = [*encode(question.answer), ids[END]]
        return asked + answer, [False] * len(asked) + [True] * len(answer)
