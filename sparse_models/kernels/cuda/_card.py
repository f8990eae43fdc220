"""What a card has that decides how its kernels are cut and raced: multiprocessors, shared memory, cache and room."""

from functools import cache
from typing import Any, NamedTuple

import torch


class Card(NamedTuple):
    """Multiprocessors, and bytes of shared memory that a block can have; by default an H100's, to which rules are fitted."""

    multiprocessors: int = 132
    shared_bytes: int = 227 * 1024


H100 = Card()
RESERVED_BYTES = 1024  # of a multiprocessor's shared memory, for each block beside its own


@cache
def cache_bytes(device: torch.device) -> int:
    """Return the bytes of a card's last cache; 0 where it is none."""
    properties: Any = torch.cuda.get_device_properties(device) if device.type == "cuda" else None
    return 0 if properties is None else int(properties.L2_cache_size)


def free_bytes(device: torch.device) -> int:
    """Return the bytes that a card's memory still has room for, with what PyTorch holds there unused; 0 where it is none."""
    if device.type != "cuda":
        return 0
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


@cache
def card_of(device: torch.device) -> Card:
    """Return what the card of a device has; H100 where it is none, as for kernels that are emulated."""
    if device.type != "cuda":
        return H100
    properties: Any = torch.cuda.get_device_properties(device)
    return Card(int(properties.multi_processor_count), int(properties.shared_memory_per_block_optin))
