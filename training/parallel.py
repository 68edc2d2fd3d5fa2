"""Data-parallel training on the processors of one machine."""

import argparse
import os
import socket
from collections.abc import Callable, Iterable

import torch
from torch import distributed, multiprocessing


def launch(work: Callable, processes: int, args: argparse.Namespace) -> None:
    """Runs ``work(rank, processes, args)`` in each process."""
    if processes == 1:
        work(0, 1, args)
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    multiprocessing.spawn(_start, (work, processes, args, port), nprocs=processes)


def _start(rank: int, work: Callable, processes: int, args: argparse.Namespace, port: int) -> None:
    os.setsid()  # schedulers that share time by session then count every process by itself
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    distributed.init_process_group("gloo", rank=rank, world_size=processes)
    work(rank, processes, args)
    distributed.destroy_process_group()


@torch.no_grad()
def average_gradients(parameters: Iterable[torch.Tensor], processes: int) -> None:
    """Replaces every gradient by its mean over the processes, in one flat exchange."""
    if processes == 1:
        return
    weights = [p for p in parameters if p.requires_grad]
    for weight in weights:
        if weight.grad is None:
            weight.grad = torch.zeros_like(weight)
    flat = torch.cat([weight.grad.flatten() for weight in weights])
    distributed.all_reduce(flat)
    flat /= processes
    place = 0
    for weight in weights:
        size = weight.numel()
        weight.grad.copy_(flat[place : place + size].view_as(weight))
        place += size
