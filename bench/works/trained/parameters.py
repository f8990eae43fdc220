"""A trained model's parameters in, text that the processes of a run pass on out; and back, into a model like it."""

import base64

import torch
from torch import nn


def packed(model: nn.Module) -> list[str]:
    """Return the bytes of each parameter of a model as text."""
    tensors = [one.detach().cpu().contiguous().view(torch.uint8) for one in model.parameters()]
    return [base64.b64encode(one.numpy().tobytes()).decode() for one in tensors]


@torch.no_grad()
def unpack(texts: list[str], model: nn.Module) -> None:
    """Give a model the parameters of one with the same layers and masks; raises ValueError for another number of them."""
    for one, text in zip(model.parameters(), texts, strict=True):
        one.copy_(torch.frombuffer(bytearray(base64.b64decode(text)), dtype=one.dtype).view(one.shape))
