"""Schedule-free gradient descent that keeps x, y and z, as a slow reference."""

import torch


class ScheduleFree(torch.optim.Optimizer):
    """z ← z − η ∇L(y), x ← (1 − 1/t) x + z/t, y = (1 − β) z + β x; the weights are y, or x after `eval`."""

    def __init__(self, params, lr=0.1, momentum=0.9, weight_decay=0.0):
        super().__init__(
            params,
            {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "train_mode": True, "k": 0},
        )

    @torch.no_grad()
    def step(self, closure=None):
        (group,) = self.param_groups
        group["k"] += 1
        for w in group["params"]:
            memory = self.state[w]
            if not memory:
                memory.update(x=w.detach().clone(), z=w.detach().clone())
            memory["z"] -= group["lr"] * w.grad
            memory["x"] += (memory["z"] - memory["x"]) / group["k"]
            w.copy_((1 - group["momentum"]) * memory["z"] + group["momentum"] * memory["x"])

    def eval(self):
        self._move(lambda memory, beta: memory["x"], False)

    def train(self):
        self._move(lambda memory, beta: (1 - beta) * memory["z"] + beta * memory["x"], True)

    @torch.no_grad()
    def _move(self, point, mode):
        (group,) = self.param_groups
        group["train_mode"] = mode
        for w in group["params"]:
            if memory := self.state.get(w):
                w.copy_(point(memory, group["momentum"]))
