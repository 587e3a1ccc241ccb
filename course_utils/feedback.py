"""The weights of a feedback pathway, one tensor a layer."""

import torch
from torch import nn


class FeedbackWeights(nn.Module):
    """A list of the tensors that stand for net.weights[l] going back: `feedback[l]`, with `feedback[0]` None.

    nn.ParameterList cannot hold buffers; this list holds both. A Parameter in it is trained by the optimiser, a
    plain tensor is a buffer. Both travel in `state_dict()` and move with `.to(device)`. Assigning copies the
    value, so that an edited feedback never shares memory with the weights.
    """

    def __init__(self, tensors):
        super().__init__()
        self._length = len(tensors)
        for l, tensor in enumerate(tensors):
            as_it_is = tensor is None or isinstance(tensor, nn.Parameter)
            setattr(self, str(l), tensor if as_it_is else nn.Buffer(tensor.detach().clone()))

    def __len__(self):
        return self._length

    def __getitem__(self, l):
        return getattr(self, str(range(self._length)[l]))

    def __iter__(self):
        return map(self.__getitem__, range(self._length))

    @torch.no_grad()
    def __setitem__(self, l, value):
        old = self[l]
        if old is None:
            raise ValueError(f"feedback_weights[{l}] is None and stays so: nothing goes back to the input")
        if not isinstance(value, torch.Tensor) or old.shape != value.shape:
            got = tuple(value.shape) if isinstance(value, torch.Tensor) else f"a {type(value).__name__}"
            raise ValueError(f"feedback_weights[{l}] is a tensor of shape {tuple(old.shape)}; got {got}")
        old.copy_(value)
