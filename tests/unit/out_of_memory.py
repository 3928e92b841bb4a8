"""Memory that gives out at a chosen allocation of torch."""

from __future__ import annotations

from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode


class Failing(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Raises MemoryError at allocation number `at` (from 0) of what runs under it; counts them in `count`.

    What changes a tensor in place or looks at one takes no memory and never fails.
    """

    def __init__(self, at: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.at, self.count = at, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        returns = func._schema.returns
        if func.namespace == "aten" and returns and returns[0].alias_info is None:
            if self.count == self.at:
                self.at = -1
                raise MemoryError
            self.count += 1
        return func(*args, **(kwargs or {}))
