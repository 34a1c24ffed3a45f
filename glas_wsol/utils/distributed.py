# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Train or evaluate with several processes as one; everything here does nothing where there is one process.

A process is a rank, numbered from 0; the first is the main one, and the only one that writes what belongs to no single
image. The processes are started by ``torchrun``, and tensors are exchanged by NCCL on CUDA and by Gloo elsewhere.
"""

from __future__ import annotations

import atexit
import hashlib
import logging
import os
import warnings
from collections.abc import Callable, Iterable, Sized
from datetime import timedelta
from typing import TypeVar, cast

import ignite.distributed as idist
import torch
import torch.distributed as dist
from torch import Tensor, nn

from glas_wsol.errors import ConfigError, count

__all__ = [
    "all_gather",
    "all_reduce_max",
    "any_rank",
    "average_gradients",
    "begin",
    "end",
    "is_lost",
    "is_main",
    "local_share",
    "mean",
    "not_main",
    "on_main",
    "rank",
    "rank_slice",
    "same_everywhere",
    "wait",
    "world_size",
]

_T = TypeVar("_T")


def world_size() -> int:
    """Number of processes; 1 where no group has begun."""
    return idist.get_world_size()


def rank() -> int:
    """Number of this process, from 0; 0 where no group has begun."""
    return idist.get_rank()


def is_main() -> bool:
    """Whether this process is the first, or the only one."""
    return rank() == 0


def not_main() -> bool:
    """The opposite of :func:`is_main`, for ``_disabled_`` in a config."""
    return rank() > 0


def begin(device: str | torch.device, backend: str | None = None, minutes: float = 60.0) -> None:
    """Join the processes that ``torchrun`` has started; nothing if this one has joined already.

    On CUDA each process of a machine takes the device of its number there. All but the main process are silent, but
    for errors.

    Args:
        device: where to compute: ``"cuda"``, or anything else for Gloo.
        backend: ``"gloo"`` to exchange by Gloo on CUDA too, where processes may share a device. Defaults to NCCL there.
        minutes: how long a process waits for others before it gives up.

    Raises:
        ConfigError: if the process was not started by ``torchrun``, the others are out of reach, or there is no CUDA
            device for it.
    """
    if dist.is_initialized():
        return
    if not {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys():
        fix = "start it with: torchrun --standalone --nproc_per_node=2 -m monai.bundle run ..."
        raise ConfigError("this config is for several processes, and nothing has started them", "distributed", fix)
    if backend not in (None, "gloo"):
        raise ConfigError(f"backend={backend!r}", "distributed", "give gloo, or leave it out")
    where, exchange = torch.device(device), "gloo"
    if where.type == "cuda":
        _take_device(where, shared=backend == "gloo")
        exchange = backend or "cpu:gloo,cuda:nccl"
    try:
        dist.init_process_group(exchange, timeout=timedelta(minutes=minutes))
    except (dist.DistNetworkError, dist.DistStoreError) as error:
        place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        what = f"the processes cannot meet at {place} ({str(error).strip().splitlines()[0][:150]})"
        fix = "start all of them, at a port that is free: torchrun --standalone, or --master_port=N"
        raise ConfigError(what, "distributed", fix) from error
    atexit.register(_leave)
    if not_main():
        logging.disable(logging.WARNING)
        warnings.simplefilter("ignore")


def _take_device(device: torch.device, shared: bool) -> None:
    local, there = int(os.environ.get("LOCAL_RANK", os.environ["RANK"])), torch.cuda.device_count()
    if device.index is not None and int(os.environ.get("LOCAL_WORLD_SIZE", os.environ["WORLD_SIZE"])) > 1:
        fix = "set device=cuda: each takes its own"
        raise ConfigError(f"device={device} for several processes", "distributed", fix)
    if not there or (local >= there and not shared):
        fix = "start fewer processes, share a device with backend=gloo, or set device=cpu"
        raise ConfigError(f"process {local} of this machine, and {there} CUDA devices", "distributed", fix)
    if device.index is None:
        torch.cuda.set_device(local % there)


def end() -> None:
    """Wait for the others, and leave the group; nothing where there is none. After an error it is left without."""
    wait()
    _leave()


def _leave() -> None:
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def is_lost(error: BaseException) -> bool:
    """Whether an exchange failed because another process has ended or no longer answers."""
    if not dist.is_available():
        return False
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "/gloo/" in str(error))


def wait() -> None:
    """Continue when all processes have arrived here."""
    if world_size() > 1:
        dist.all_reduce(torch.zeros(1))  # on the CPU: a process may wait for long, and must not occupy a device


def on_main(work: Callable[[], _T]) -> _T:
    """Have the main process alone do something, without exchange, while others wait; all get its (picklable) result."""
    return all_gather([work()] if is_main() else [])[0]


def all_gather(items: Iterable[_T]) -> list[_T]:
    """The items of all processes, in the order of the processes. ``items``: picklable ones, any number of them."""
    items = list(items)
    if world_size() == 1:
        return items
    return [one for part in cast("list[list[_T]]", idist.all_gather(items)) for one in part]


def mean(value: Tensor) -> Tensor:
    """The mean over the processes, floating-point, without gradient; the value itself where there is one process."""
    if world_size() == 1:
        return value
    total = value.detach().clone() if value.is_floating_point() else value.detach().float()
    dist.all_reduce(total)  # ignite's would move it to another device
    return total / world_size()


def any_rank(condition: bool) -> bool:
    """Whether it holds in any process."""
    return bool(all_reduce_max(int(condition)))


def all_reduce_max(number: int) -> int:
    """The largest of the processes' numbers."""
    return max(all_gather([number]))


def local_share(whole: int, name: str = "batch_size") -> int:
    """One process's share of a mini-batch over all; a ConfigError if it does not divide evenly."""
    processes = world_size()
    if whole % processes or whole < processes:
        fix = f"give a multiple of {processes}: it counts the images of all processes together"
        raise ConfigError(f"{name}={whole} cannot be shared by {processes} processes", name, fix)
    return whole // processes


def rank_slice(dataset: Sized) -> range:
    """Which neighbours are this process's to evaluate, all in turn in order; a ConfigError if a process has none."""
    number, processes = len(dataset), world_size()
    if processes > 1 and number < processes:
        what = f"{count(number, 'image')} cannot be shared by {count(processes, 'process')}"
        raise ConfigError(what, "distributed", "start fewer processes")
    return range(rank() * number // processes, (rank() + 1) * number // processes)


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace gradients by their means over the processes.

    Those that are None stay so; they must be None in all processes.

    Args:
        parameters: the same in every process, in the same order.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if world_size() == 1:
        return
    for kind in dict.fromkeys((one.dtype, one.device) for one in gradients):
        mine = [one for one in gradients if (one.dtype, one.device) == kind]
        means = mean(torch.cat([one.reshape(-1) for one in mine]))
        for gradient, part in zip(mine, means.split([one.numel() for one in mine]), strict=True):
            gradient.copy_(part.view_as(gradient))


def same_everywhere(module: nn.Module) -> bool:
    """Whether all processes hold the same parameters and buffers, bit by bit."""
    if world_size() == 1:
        return True
    digest = hashlib.sha256()
    for one in module.state_dict().values():
        digest.update(one.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return len(set(all_gather([digest.digest()]))) == 1
