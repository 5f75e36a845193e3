"""A running mean of the weights, which predicts better than the weights of any one step."""

import torch
from torch import Tensor, nn


class Average:
    """Exponential mean of every floating-point entry of a module's state (Tarvainen and Valpola 2017).

    decay: 0 keeps the weights of the last step.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.steps = 0
        self.state = {name: value.detach().clone() for name, value in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Take in the weights after a step; early steps count more, so that the random start is forgotten."""
        self.steps += 1
        share = 1 - min(self.decay, self.steps / (10 + self.steps))
        current = module.state_dict()
        floats = [name for name, value in self.state.items() if value.is_floating_point()]
        torch._foreach_lerp_([self.state[name] for name in floats], [current[name] for name in floats], share)
        for name in self.state.keys() - set(floats):
            self.state[name].copy_(current[name])

    def load(self, state: dict[str, Tensor], steps: int) -> None:
        """Continue a saved mean."""
        for name, value in state.items():
            self.state[name].copy_(value)
        self.steps = steps
