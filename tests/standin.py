# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""A stand-in for a GPU: tensors on "cuda" that hold no values, on a torch without CUDA.

For C++ such a tensor is on "meta", so that autograd, optimisers and modules work; for Python it is on "cuda". Where a
GPU would refuse an operation, an exception is raised here; where a program would wait for one, the wait is recorded
with its place, and a made-up value is handed out. Nothing is learnt of speed, memory, rounding or kernels. Modes of
torch hold for one thread: what runs must not start others.
"""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import glas_wsol

__all__ = ["MixedDevicesError", "StandIn", "stand_in"]

_PACKAGE = str(Path(glas_wsol.__file__).parent)
_CUDA = torch.device("cuda", 0)
_aten = torch.ops.aten
_COPIES = (_aten._to_copy.default, _aten.copy_.default)
_READERS = (_aten._local_scalar_dense.default, _aten.nonzero.default, _aten.equal.default, _aten.masked_select.default)
_READERS += (_aten._unique2.default, _aten.is_nonzero.default)
_INDEXED = (_aten.index.Tensor, _aten.index_put_.default, _aten.index_put.default)  # by indices on the CPU too


_FUSED = (_aten._fused_sgd_.default, _aten._fused_adamw_.default, _aten._fused_adam_.default)


class MixedDevicesError(RuntimeError):
    """An operation on tensors of the GPU and of the CPU."""


def _place() -> str:
    """The line of the package, else of whoever called torch, that is being run."""
    frames = [frame for frame in traceback.extract_stack() if frame.filename != __file__]
    own = [frame for frame in frames if frame.filename.startswith(_PACKAGE)]
    others = [frame for frame in frames if "/torch/" not in frame.filename]
    frame = (own or others)[-1]
    return f"{Path(frame.filename).name}:{frame.lineno} {frame.name}: {frame.line}"


def _kind(tensor: torch.Tensor) -> str:
    return torch.Tensor.device.__get__(tensor).type


class StandIn(TorchDispatchMode):
    """Watches every operation.

    Attributes:
        phase: what is being done, set by whoever runs it.
        waits: how often, by phase and place, a value of the GPU was waited for.
        copies: the same of copies that nobody waits for.
        operations: how many there were on the GPU.
    """

    def __init__(self) -> None:
        super().__init__()
        self.phase, self.operations = "", 0
        self.waits: Counter[tuple[str, str]] = Counter()
        self.copies: Counter[tuple[str, str]] = Counter()
        self._random = torch.Generator().manual_seed(0)

    def waits_of(self, phase: str) -> Counter[str]:
        """The waits of one phase, by their places."""
        return Counter({place: count for (of, place), count in self.waits.items() if of == phase})

    @contextmanager
    def during(self, phase: str) -> Iterator[None]:
        """Set the phase for a while."""
        before, self.phase = self.phase, phase
        try:
            yield
        finally:
            self.phase = before

    def wait(self) -> None:
        """Record a wait here."""
        self.waits[self.phase, _place()] += 1

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with torch._C.DisableTorchFunction():
            return self._answer(func, args, kwargs or {})

    def _answer(self, func: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
        tensors = [one for one in tree_leaves((args, kwargs)) if isinstance(one, torch.Tensor)]
        kinds = [_kind(one) for one in tensors]
        if func in _COPIES:
            return self._copy(func, args, kwargs)
        if "meta" not in kinds:
            return func(*args, **kwargs)
        self.operations += 1
        if func not in _INDEXED and any(kind == "cpu" and one.ndim for one, kind in zip(tensors, kinds, strict=True)):
            raise MixedDevicesError(f"{func} at {_place()}")
        if func in _FUSED:
            return None
        masks = [one for one in tree_leaves(args[1]) if one is not None] if func is _aten.index.Tensor else []
        by_mask = any(one.dtype in (torch.bool, torch.uint8) for one in masks)
        if func not in _READERS and not by_mask:
            return func(*args, **kwargs)
        self.wait()
        if func is _aten._local_scalar_dense.default:
            return self._made_up((), args[0].dtype).item()
        if func in (_aten.equal.default, _aten.is_nonzero.default):
            return True
        if func is _aten.nonzero.default:
            return torch.zeros((args[0].numel(), args[0].ndim), dtype=torch.int64, device="meta")
        if by_mask and len(masks) == 1:  # all pass
            rest = args[0].shape[masks[0].ndim :]
            return torch.empty((masks[0].numel(), *rest), dtype=args[0].dtype, device="meta")
        raise NotImplementedError(f"{func} at {_place()}")

    def _copy(self, func: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
        into = args[0] if func is _aten.copy_.default else None
        source = args[1] if into is not None else args[0]
        here = _kind(source)
        there = torch.device(kwargs.get("device") or here).type if into is None else _kind(into)
        if here == there:
            return func(*args, **kwargs)
        blocking = not (kwargs.get("non_blocking") or (into is not None and len(args) > 2 and args[2]))
        if source.ndim or there == "cpu":  # a number goes with the call
            (self.waits if blocking else self.copies)[self.phase, _place()] += 1
        if there != "cpu":
            return func(*args, **kwargs)
        made_up = self._made_up(source.shape, source.dtype if into is not None else kwargs.get("dtype") or source.dtype)
        return made_up if into is None else into.copy_(made_up)

    def _made_up(self, shape: Any, dtype: torch.dtype) -> torch.Tensor:
        if dtype.is_floating_point:
            return torch.rand(shape, generator=self._random).mul_(0.9).add_(0.05).to(dtype)
        return torch.ones(shape, dtype=dtype)


class _AsCuda(TorchFunctionMode):
    """Python sees "cuda" where C++ has "meta"."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func == torch.Tensor.device.__get__:
            with torch._C.DisableTorchFunction():
                found = func(*args)
            return _CUDA if found.type == "meta" else found
        if func == torch.Tensor.is_cuda.__get__:
            return args[0].device.type == "cuda"
        if func == torch.Tensor.is_meta.__get__:
            return False
        if func is torch.Tensor.cuda:
            return args[0].to("cuda")
        if func in (torch.Tensor.numpy, torch.Tensor.__array__) and args[0].device.type == "cuda":
            raise TypeError(f"can't convert cuda:0 device type tensor to numpy at {_place()}")
        if func is torch.device or getattr(func, "__name__", "") in ("get_device_module", "is_autocast_enabled"):
            return func(*args, **kwargs)
        kwargs.pop("pin_memory", None)
        return func(*map(_there, args), **{key: _there(value) for key, value in kwargs.items()})


def _there(value: Any) -> Any:
    if isinstance(value, (torch.device, str)) and str(value).split(":")[0] == "cuda":
        return torch.device("meta")
    return value


class _Event:
    def __init__(self, *args: Any, **kwargs: Any) -> None: ...
    def record(self, *args: Any) -> None: ...
    def synchronize(self) -> None: ...
    def wait(self, *args: Any) -> None: ...


@contextmanager
def stand_in() -> Iterator[StandIn]:
    """Let torch have a GPU, and watch it."""
    says = {
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "set_device": lambda device: None,
        "synchronize": lambda *args: None,
        "Event": _Event,
        "mem_get_info": lambda *args: (100 << 30, 139 << 30),
        "manual_seed_all": lambda seed: None,
        "is_bf16_supported": lambda *args, **kwargs: True,
        "empty_cache": lambda: None,
        "is_current_stream_capturing": lambda: False,
        "get_device_name": lambda *args: "stand-in",
        "get_rng_state_all": list,
        "set_rng_state_all": lambda states: None,
    }
    with ExitStack() as stack:
        for name, value in says.items():
            stack.enter_context(mock.patch(f"torch.cuda.{name}", value))
        watching = stack.enter_context(StandIn())
        stack.enter_context(_AsCuda())
        yield watching
