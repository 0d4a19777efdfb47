"""Ask llama.cpp itself: ``python -m tools.demo_models.check`` (needs llama-cpp-python).

It compares the tokens of llama.cpp with those of training, lets both models answer the held-out
questions greedily, and prints a chat.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from llama_cpp import Llama

from .__main__ import PLANS, make_tokenizer
from .corpus import read_corpus
from .dialogue import Dialogues
from .tokenizer import Tokenizer

CHAT = (
    "hello!",
    "What is this project?",
    "How do I mount the router?",
    "and in flask?",
    "what happens if a worker crashes?",
    "Can you explain what models_max is for?",
    "how can I write my own plugin",
    "what is sleep on idle",
    "which model gets kicked out first?",
    "what licence",
    "What is the capital of Italy?",
    "and Norway?",
    "what is 7 + 5?",
    "Who won the world cup in 1998?",
    "how do I use a model inside my own route?",
    "what's the url",
    "Why does every model have its own process?",
    "tell me a joke",
    "thanks, bye",
)
MIXED = (
    "caf\u00e9 {x: 1}\n\n  two  spaces\t7+12",
    "HOW DO I MOUNT IT??",
    "`a.b_c(**d)`",
    "\U0001f600 ok",
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.demo_models.check")
    parser.add_argument("--models", type=Path, default=Path("src/llm_router_mw/demo_models"))
    parser.add_argument("--temperature", type=float, default=0.0)
    arguments = parser.parse_args()
    corpus = read_corpus()
    tokenizer = make_tokenizer(corpus)
    for plan in PLANS:
        path = arguments.models / f"{plan.name}.gguf"
        llama = Llama(str(path), n_ctx=1024, verbose=False, seed=1)
        dialogues = Dialogues(corpus, tokenizer, plan.name, 0)
        questions = dialogues.measured(held_out=True)
        compare_tokens(
            llama, tokenizer, [*MIXED, *CHAT, *(question.text for question in questions)]
        )
        right = 0
        for question in questions:
            said = answer(llama, [("user", question.text)], arguments.temperature)
            right += said == question.answer
        print(f"{plan.name}: {right}/{len(questions)} held-out questions exact in llama.cpp")
        talk(llama, arguments.temperature)


def compare_tokens(llama: Llama, tokenizer: Tokenizer, texts: list[str]) -> None:
    """Stop if llama.cpp cuts any text, alone or in a chat, in another way than training does."""
    for text in texts:
        ours = tokenizer.encode(text)
        if llama.tokenize(text.encode(), add_bos=False, special=False) != ours:
            raise SystemExit(f"llama.cpp cuts this text in another way: {text!r}")
        chat = f"<|user|>{text}<|end|><|assistant|>"
        ids = tokenizer.ids
        expected = [ids["<|user|>"], *ours, ids["<|end|>"], ids["<|assistant|>"]]
        if llama.tokenize(chat.encode(), add_bos=False, special=True) != expected:
            raise SystemExit(f"llama.cpp cuts this chat in another way: {chat!r}")
    print(f"{len(texts)} texts: same tokens")


def answer(llama: Llama, chat: list[tuple[str, str]], temperature: float) -> str:
    """What the model says next, through its own chat template."""
    messages: Any = [{"role": role, "content": content} for role, content in chat]
    reply: Any = llama.create_chat_completion(messages, temperature=temperature, max_tokens=150)
    return str(reply["choices"][0]["message"]["content"])


def talk(llama: Llama, temperature: float) -> None:
    """One chat; the oldest exchanges are dropped, as a page with a short memory would do."""
    chat: list[tuple[str, str]] = []
    for question in CHAT:
        chat = [*chat[-8:], ("user", question)]
        said = answer(llama, chat, temperature)
        chat.append(("assistant", said))
        print(f"  > {question}\n    {said}")


if __name__ == "__main__":
    main()
