"""Recurrent, attention and message-passing modules of torch, on three sequences of five vectors."""

from collections.abc import Callable
from typing import Any, Final, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from optim_family.networks.families.example import Example


@final
class MessagePassing(nn.Module):
    """Two rounds of gather, transform, scatter-add over the edges [2, m] of a graph."""

    def __init__(self) -> None:
        super().__init__()
        self.message, self.update = nn.Linear(12, 6), nn.GRUCell(6, 6)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        """The nodes' vectors after two rounds, [n, 6]."""
        for _ in range(2):
            sender, receiver = edges
            messages = torch.tanh(self.message(torch.cat([x[sender], x[receiver]], 1)))  # [m, 6]
            x = self.update(torch.zeros_like(x).index_add(0, receiver, messages), x)
        return x


MODULES: Final[dict[str, Callable[[], nn.Module]]] = {
    "rnn": lambda: nn.RNN(6, 6, batch_first=True),
    "gru": lambda: nn.GRU(6, 6, 2, batch_first=True),
    "lstm": lambda: nn.LSTM(6, 6, batch_first=True),
    "bidirectional lstm": lambda: nn.LSTM(6, 3, bidirectional=True, batch_first=True),
    "projected lstm": lambda: nn.LSTM(6, 8, proj_size=6, batch_first=True),
    "encoder layer": lambda: nn.TransformerEncoderLayer(6, 2, 8, batch_first=True),
    "decoder layer": lambda: nn.TransformerDecoderLayer(6, 2, 8, batch_first=True),
    "transformer": lambda: nn.Transformer(6, 2, 1, 1, 8, batch_first=True),
    "attention": lambda: nn.MultiheadAttention(6, 2, batch_first=True),
    "message passing": MessagePassing,
}


def names() -> list[str]:
    """The models of the sweep."""
    return list(MODULES)


def all_names() -> list[str]:
    """All models that `build` knows."""
    return names()


def build(name: str) -> Example:
    """The module, to be fitted to random targets."""
    model = MODULES[name]()
    x, y = torch.randn(3, 5, 6, dtype=torch.float64), torch.randn(3, 5, 6, dtype=torch.float64)
    if name in ("transformer", "decoder layer"):
        return Example(model, _squared_error, ((x, y), y))
    if name == "attention":
        return Example(model, _squared_error, ((x, x, x), y))
    if name == "message passing":
        return Example(model, _squared_error, ((x[0], torch.randint(0, 5, (2, 12))), y[0]))
    return Example(model, _squared_error, (x, y))


def _squared_error(outputs: Any, y: Tensor) -> Tensor:
    return functional.mse_loss(outputs[0] if isinstance(outputs, tuple) else outputs, y)
