"""Training on the CPU: Muon for the matrices, AdamW for the embedding and the norms."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from .dialogue import Dialogues, Question
from .model import Llama, Shape

TOKENS_PER_STEP = 3072
LENGTHS = (128, 256, 512, 1024)
SHORT_LENGTHS = (128, 128, 256)
"""Rows of the first half: to find the question is learned sooner in short chats."""


@dataclass(frozen=True)
class Plan:
    """How one model is trained."""

    name: str
    shape: Shape
    steps: int
    seed: int
    matrix_rate: float = 0.02
    embedding_rate: float = 0.004


class Muon(torch.optim.Optimizer):
    """Momentum whose step is made orthogonal, so that every direction of a matrix learns alike.

    A small network learns its text in about half the steps that AdamW takes. (torch has a Muon
    of its own, but it computes in bfloat16, which is slow on a CPU.)
    """

    def __init__(self, weights: list[Tensor], lr: float, momentum: float = 0.95) -> None:
        super().__init__(weights, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for group in self.param_groups:
            for weight in group["params"]:
                state = self.state[weight]
                speed = state.setdefault("speed", torch.zeros_like(weight))
                speed.lerp_(weight.grad, 1 - group["momentum"])
                ahead = weight.grad.lerp(speed, group["momentum"])
                stretch = max(1.0, weight.shape[0] / weight.shape[1]) ** 0.5
                weight.mul_(1 - group["lr"] * 0.01)
                weight.add_(_orthogonal(ahead), alpha=-group["lr"] * stretch)


def _orthogonal(matrix: Tensor) -> Tensor:
    """The nearest orthogonal matrix, roughly: five Newton-Schulz steps (Jordan et al., 2024)."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrix / (matrix.norm() + 1e-7)
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    for _ in range(5):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return x.T if tall else x


@dataclass(frozen=True)
class Trained:
    """A trained network and what it took."""

    model: Llama
    seconds: float
    loss: float


def train(plan: Plan, dialogues: Dialogues) -> Trained:
    """Train one model; the loss is the mean over the last hundred steps."""
    torch.manual_seed(plan.seed)
    model = Llama(plan.shape)
    matrices = [weight for weight in model.layers.parameters() if weight.dim() == 2]
    others = [weight for weight in model.parameters() if all(weight is not m for m in matrices)]
    muon = Muon(matrices, plan.matrix_rate)
    adam = torch.optim.AdamW(others, plan.embedding_rate, betas=(0.9, 0.98), weight_decay=0.0)
    started = time.perf_counter()
    losses: list[float] = []
    for step in range(plan.steps):
        # A short warm-up, a plateau, and a long straight way down to nothing.
        rate = min(1.0, (step + 1) / 40, (plan.steps - step) / (0.6 * plan.steps))
        muon.param_groups[0]["lr"] = plan.matrix_rate * rate
        adam.param_groups[0]["lr"] = plan.embedding_rate * rate
        lengths = SHORT_LENGTHS if step < plan.steps // 2 else LENGTHS
        loss = _loss(model, dialogues, lengths[step % len(lengths)])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(others, 1.0)
        muon.step()
        adam.step()
        model.zero_grad(set_to_none=True)
        losses.append(loss.item())
        if step % 50 == 49:
            seconds = time.perf_counter() - started
            recent = sum(losses[-50:]) / 50
            done = f"{step + 1}/{plan.steps}"
            print(f"{plan.name} {done} loss {recent:.4f} {seconds:.0f} s", flush=True)
    last = losses[-100:]
    return Trained(model, time.perf_counter() - started, sum(last) / len(last))


def _loss(model: Llama, dialogues: Dialogues, length: int) -> Tensor:
    """The mean loss over the model's own words, in one batch of rows of equal length."""
    rows = [dialogues.row(length) for _ in range(TOKENS_PER_STEP // length)]
    tokens = torch.tensor([tokens for tokens, _ in rows])
    own = torch.tensor([own for _, own in rows])[:, 1:]
    # Only the places that count are multiplied with the vocabulary: that is a third of the work.
    hidden = model(tokens[:, :-1])[own]
    return F.cross_entropy(model.logits(hidden), tokens[:, 1:][own])


@torch.no_grad()
def exact_rate(
    model: Llama, dialogues: Dialogues, questions: list[Question]
) -> tuple[float, list[Question]]:
    """The share of questions that are answered to the letter, and those that are not.

    The right answer is given to the network and each next token compared with its first choice:
    all of them agree exactly when greedy decoding writes that answer.
    """
    wrong = []
    for question in questions:
        tokens, own = dialogues.alone(question)
        hidden = model(torch.tensor([tokens[:-1]]))[0]
        best = model.logits(hidden).argmax(-1)
        right = best == torch.tensor(tokens[1:])
        if not bool(right[torch.tensor(own[1:])].all()):
            wrong.append(question)
    return 1 - len(wrong) / len(questions), wrong
