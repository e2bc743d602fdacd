"""What a network made of an input that comes again: kept while a policy acts, to the same bits."""

from collections.abc import Callable

import torch
from torch import Tensor


class Recall:
    """Results by the input's own bytes; what the last call did not ask for is forgotten.

    Only for weights that do not change, without a graph, on a CPU (a GPU would have to hand the
    input over first, which costs more than it saves).
    """

    def __init__(self) -> None:
        self._rows: dict[bytes, Tensor] = {}
        self._whole: tuple[Tensor, Tensor] | None = None

    def rows(self, inputs: Tensor, compute: Callable[[Tensor], Tensor]) -> Tensor:
        """Return compute(inputs), where every row (axis 0) depends on its own input alone.

        Only rows that are new are computed, each once.
        """
        keys = [row.numpy().tobytes() for row in inputs]
        new: dict[bytes, int] = {}
        for i, key in enumerate(keys):
            if key not in self._rows:
                new.setdefault(key, i)
        if new:
            made = compute(inputs[list(new.values())])
            self._rows.update(zip(new, made, strict=True))
        self._rows = {key: self._rows[key] for key in keys}
        return torch.stack([self._rows[key] for key in keys])

    def whole(self, inputs: Tensor, compute: Callable[[Tensor], Tensor]) -> Tensor:
        """Return compute(inputs), or what it was if the inputs are those of the last call."""
        if self._whole is None or not torch.equal(self._whole[0], inputs):
            self._whole = inputs.clone(), compute(inputs)
        return self._whole[1]
