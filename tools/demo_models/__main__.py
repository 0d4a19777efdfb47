"""Train both demo models and write them: ``python -m tools.demo_models``."""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path

import torch

from .corpus import Corpus, plain, read_corpus
from .dialogue import Dialogues
from .export import export
from .model import Shape
from .phrasing import finished
from .tokenizer import Tokenizer, train_tokenizer
from .train import Plan, exact_rate, train

VOCABULARY = 1280
PLANS = (
    Plan("guide", Shape(VOCABULARY, layers=4, width=192, heads=3, hidden=512), steps=1000, seed=1),
    Plan(
        "companion", Shape(VOCABULARY, layers=4, width=128, heads=2, hidden=352), steps=900, seed=2
    ),
)
ABOUT = {
    "guide": "A tiny demo model of llm-router-mw: careful, factual answers about the project.",
    "companion": "A tiny demo model of llm-router-mw: smaller than guide, and friendlier.",
}
SIZE_LIMIT_BYTES = 4_000_000


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.demo_models", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("src/llm_router_mw/demo_models"))
    parser.add_argument("--speed-up", type=float, default=1.0, help="divide the steps by this")
    parser.add_argument("--only", choices=[plan.name for plan in PLANS], help="train only this one")
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    corpus = read_corpus()
    tokenizer = make_tokenizer(corpus)
    arguments.out.mkdir(parents=True, exist_ok=True)
    report = arguments.out / "figures.json"
    figures = json.loads(report.read_text()) if report.exists() else {}
    for plan in PLANS:
        if arguments.only in (None, plan.name):
            steps = round(plan.steps / arguments.speed_up)
            shortened = Plan(plan.name, plan.shape, steps, plan.seed)
            figures[plan.name] = build(shortened, corpus, tokenizer, arguments.out)
            report.write_text(json.dumps(figures, indent=2) + "\n")
    total = sum(path.stat().st_size for path in arguments.out.glob("*.gguf"))
    print(f"{total} bytes in all")
    if total > SIZE_LIMIT_BYTES:
        raise SystemExit(f"the files are larger than {SIZE_LIMIT_BYTES} bytes")


def build(plan: Plan, corpus: Corpus, tokenizer: Tokenizer, out: Path) -> dict[str, object]:
    """Train, write and measure one model; the figures of it."""
    dialogues = Dialogues(corpus, tokenizer, plan.name, plan.seed)
    trained = train(plan, dialogues)
    path = out / f"{plan.name}.gguf"
    export(trained.model, tokenizer, path, name=plan.name, about=ABOUT[plan.name])
    rates = {}
    for held_out in (False, True):
        kind = "held-out" if held_out else "training"
        rate, wrong = exact_rate(trained.model, dialogues, dialogues.measured(held_out=held_out))
        rates[held_out] = rate
        print(f"{plan.name}: {rate:.1%} of the {kind} questions exact", flush=True)
        for question in wrong:
            print(f"  wrong ({kind}) {question.entry}: {question.text}")
    return {
        "parameters": sum(weight.numel() for weight in trained.model.parameters()),
        "layers": plan.shape.layers,
        "width": plan.shape.width,
        "vocabulary": plan.shape.vocabulary,
        "context_length": plan.shape.context,
        "training_steps": plan.steps,
        "training_seconds": round(trained.seconds),
        "final_loss": round(trained.loss, 4),
        "exact_rate_training": round(rates[False], 4),
        "exact_rate_held_out": round(rates[True], 4),
        "file_bytes": path.stat().st_size,
        "text_sha256": hashlib.sha256(corpus.source.encode()).hexdigest(),
    }


def make_tokenizer(corpus: Corpus) -> Tokenizer:
    """The one vocabulary that both models share."""
    return train_tokenizer(_vocabulary_text(corpus), VOCABULARY)


def _vocabulary_text(corpus: Corpus) -> list[str]:
    """What the pieces are made from: answers, and questions with and without capitals."""
    texts: list[str] = list(corpus.systems)
    for families in corpus.families.values():
        for family in families:
            # One of each family will do; its numbers and names are only letters to the tokenizer.
            for entry in family[:30]:
                questions = [plain(question) for question in entry.questions]
                texts += [*entry.answers.values(), *questions, *map(finished, questions)]
    return texts


if __name__ == "__main__":
    main()
