"""The processes that train one run together, data parallel: each takes its share of a step's micro-steps.

One process is the usual case and needs nothing of this. Several find each other through the variables of torchrun
(RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT), set by `launcher`; accelerate opens the group. Only the first
process writes: records, samples, resume points, the checkpoint.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import torch

_CHUNK_BYTES: Final = 64 * 1024**2
T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """This process among all. rank: 0 is the one that writes. size: number of processes."""

    rank: int
    size: int
    device: torch.device

    @property
    def writes(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    def average(self, tensors: Sequence[torch.Tensor]) -> None:
        """Replace each tensor by its mean over all processes, summed in one message."""
        if self.size == 1 or not tensors:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        torch.distributed.all_reduce(flat)
        flat /= self.size
        for tensor, mean in zip(tensors, torch.split(flat, [tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(mean.view_as(tensor))

    def any(self, flag: bool) -> bool:
        """Whether any process says yes: all get the same answer."""
        if self.size == 1:
            return flag
        said = torch.tensor([float(flag)], device=self.device)
        torch.distributed.all_reduce(said)
        return bool(said.item() > 0)

    def share(self, value: T, folder: Path) -> T:
        """The writer's value and the files of its folder, in all processes."""
        if self.size == 1:
            return value
        names = sorted(path.name for path in folder.iterdir()) if self.writes and folder.is_dir() else []
        shared: list[Any] = [value, names]
        torch.distributed.broadcast_object_list(shared, device=self.device)
        for name in shared[1]:
            self._share_file(folder / name)
        result: T = shared[0]
        return result

    def _share_file(self, path: Path) -> None:
        size = [path.stat().st_size if self.writes else 0]
        torch.distributed.broadcast_object_list(size, device=self.device)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("rb" if self.writes else "wb") as file:
            for offset in range(0, size[0], _CHUNK_BYTES):
                length = min(_CHUNK_BYTES, size[0] - offset)
                chunk = torch.frombuffer(bytearray(file.read(length) if self.writes else length), dtype=torch.uint8)
                chunk = chunk.to(self.device)
                torch.distributed.broadcast(chunk, 0)
                if not self.writes:
                    file.write(chunk.cpu().numpy().tobytes())


def join() -> World:
    """Join the group that the environment describes; alone if it describes none."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return World(0, 1, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    from accelerate import PartialState

    state = PartialState(cpu=not torch.cuda.is_available())
    return World(state.process_index, state.num_processes, state.device)
