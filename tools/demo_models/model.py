"""A small Llama: the network that llama.cpp calls "llama", as few lines as it takes to train it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ROPE_BASE = 10_000.0
NORM_EPSILON = 1e-5


@dataclass(frozen=True)
class Shape:
    """Sizes of a network. Widths are multiples of 32, because Q8_0 stores blocks of 32 weights."""

    vocabulary: int
    layers: int
    width: int
    heads: int
    hidden: int
    context: int = 1024

    @property
    def head_width(self) -> int:
        return self.width // self.heads


class Attention(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.q = nn.Linear(shape.width, shape.width, bias=False)
        self.k = nn.Linear(shape.width, shape.width, bias=False)
        self.v = nn.Linear(shape.width, shape.width, bias=False)
        self.out = nn.Linear(shape.width, shape.width, bias=False)

    def forward(self, x: Tensor, turn: Tensor) -> Tensor:
        rows, length, width = x.shape

        def split(y: Tensor) -> Tensor:
            return y.view(rows, length, self.heads, -1).transpose(1, 2)

        q, k, v = _rotate(split(self.q(x)), turn), _rotate(split(self.k(x)), turn), split(self.v(x))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        joined: Tensor = self.out(mixed.transpose(1, 2).reshape(rows, length, width))
        return joined


class FeedForward(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.gate = nn.Linear(shape.width, shape.hidden, bias=False)
        self.up = nn.Linear(shape.width, shape.hidden, bias=False)
        self.down = nn.Linear(shape.hidden, shape.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.down(F.silu(self.gate(x)) * self.up(x))
        return y


class Layer(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(shape.width, eps=NORM_EPSILON)
        self.attention = Attention(shape)
        self.forward_norm = nn.RMSNorm(shape.width, eps=NORM_EPSILON)
        self.feed_forward = FeedForward(shape)

    def forward(self, x: Tensor, turn: Tensor) -> Tensor:
        x = x + self.attention(self.attention_norm(x), turn)
        y: Tensor = x + self.feed_forward(self.forward_norm(x))
        return y


class Llama(nn.Module):
    """Tokens in, hidden states out; the embedding serves as the output matrix too."""

    turn: Tensor

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embedding = nn.Embedding(shape.vocabulary, shape.width)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.layers))
        self.norm = nn.RMSNorm(shape.width, eps=NORM_EPSILON)
        steps = torch.arange(0, shape.head_width, 2) / shape.head_width
        angles = torch.outer(torch.arange(shape.context).float(), ROPE_BASE**-steps)
        self.register_buffer("turn", torch.stack((angles.cos(), angles.sin())), persistent=False)
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                # What is added to the residual stream starts smaller, the more layers add to it.
                residual = name.endswith(("out.weight", "down.weight"))
                scale = (2 * shape.layers) ** -0.5 if residual else 1.0
                nn.init.normal_(weight, std=0.02 * scale)

    def forward(self, tokens: Tensor) -> Tensor:
        x: Tensor = self.embedding(tokens)
        turn = self.turn[:, : tokens.shape[1]]
        for layer in self.layers:
            x = layer(x, turn)
        y: Tensor = self.norm(x)
        return y

    def logits(self, hidden: Tensor) -> Tensor:
        return F.linear(hidden, self.embedding.weight)


def _rotate(x: Tensor, turn: Tensor) -> Tensor:
    """Rotary positions on neighbouring pairs: the order that llama.cpp has for "llama"."""
    even, odd = x[..., 0::2], x[..., 1::2]
    cos, sin = turn[0], turn[1]
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1).flatten(-2)
