"""The processes that train one run together, data parallel: each takes its share of a step's micro-steps.

One process is the usual case and needs nothing of this. Several are workers of a launcher (see `workers`); accelerate
opens their group. Only the first one writes: records, samples, resume points, the checkpoint.

Gradients and losses travel between the devices (NCCL between GPUs, gloo between CPUs). Everything else goes over a
second group, always gloo: it makes no GPU wait, and it has the patience for what one process does while the others wait.
"""

import os
import pickle
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, TypeVar

import torch
from torch import distributed
from torch.distributed import FileStore, Store, TCPStore  # type: ignore[attr-defined] # public, but not in __all__

from dreambooth import devices
from dreambooth.errors import PartnerLost, PartnersAbsent, RecipeInvalid
from dreambooth.exits import StopSignal
from dreambooth.workers import MEETING_SECONDS, Place

CHUNK_BYTES: Final = 64 * 1024**2
# The longest that one process lets the others wait, drawing samples or class images. A process that ends is noticed at once; this
# is for a machine that vanishes without a word.
_PATIENCE: Final = timedelta(hours=2)
_LOOK_SECONDS: Final = 0.2
T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """This process among all. rank: 0 is the one that writes. size: number of processes. local_*: of this machine's.

    folder: shared by the processes of this machine; control: the group for everything but gradients; both None for a
    single process. All methods but the properties are called by all processes in the same order, and raise PartnerLost
    if one of them is gone.
    """

    rank: int
    size: int
    device: torch.device
    local_rank: int = 0
    local_size: int = 1
    folder: Path | None = None
    control: Any = None

    @property
    def writes(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    def average(self, tensors: Sequence[torch.Tensor]) -> None:
        """Replace each fp32 tensor by its mean over all processes."""
        if self.size == 1:
            return
        for some in _in_chunks(tensors):
            flat = torch.cat([tensor.reshape(-1) for tensor in some])
            with _together():
                distributed.all_reduce(flat)
            flat /= self.size
            for tensor, mean in zip(some, torch.split(flat, [tensor.numel() for tensor in some]), strict=True):
                tensor.copy_(mean.view_as(tensor))

    def gather(self, numbers: torch.Tensor) -> torch.Tensor:
        """The numbers of all processes in order of their ranks. numbers: 1-dimensional, as many in every process."""
        if self.size == 1:
            return numbers
        gathered = numbers.new_zeros(self.size, len(numbers))
        gathered[self.rank] = numbers
        with _together():
            distributed.all_reduce(gathered)
        return gathered.view(-1)

    def any(self, flag: bool) -> bool:
        """Whether any process says yes: all get the same answer."""
        if self.size == 1:
            return flag
        said = torch.tensor([float(flag)])
        with _together():
            distributed.all_reduce(said, group=self.control)
        return bool(said.item() > 0)

    def once(self, make: Callable[[], T]) -> T:
        """What `make` gives in the process that writes, in all processes. `make` runs alone: it must not ask the others."""
        if self.size == 1:
            return make()
        made: list[Any] = [make() if self.writes else None]
        with _together():
            distributed.broadcast_object_list(made, group=self.control)
        result: T = made[0]
        return result

    def share_files(self, folder: Path) -> None:
        """The files of the writer's folder, on all machines. folder: its place on this machine, for all of its processes."""
        if self.size == self.local_size:
            return
        for name in self.once(lambda: [path.name for path in folder.iterdir()] if folder.is_dir() else []):
            self._share_file(folder / name)
        self.any(False)  # the files of this machine are complete only when its first process is here, too

    def once_a_machine(self, name: str, make: Callable[[], T]) -> T:
        """What `make` gives in the first process of this machine, in all of its processes. It runs alone, as in `once`.

        name: unique in the run.
        """
        if self.size == 1 or self.folder is None:
            return make()
        file = self.folder / f"{name}.pickle"
        if self.local_rank == 0:
            made = make()
            file.write_bytes(pickle.dumps(made))
            self.any(False)
            return made
        self.any(False)
        result: T = pickle.loads(file.read_bytes())
        return result

    def leave(self) -> None:
        """Part at the end of the run: the others wait for the writer, so that they are there if it has to start again."""
        if self.size == 1:
            return
        with suppress(PartnerLost) if self.writes else nullcontext():  # the writer's work is done
            self.any(False)
        distributed.destroy_process_group()

    def _share_file(self, path: Path) -> None:
        size = self.once(lambda: path.stat().st_size)
        path.parent.mkdir(parents=True, exist_ok=True)
        keeps = self.local_rank == 0
        with open(path if keeps else os.devnull, "rb" if self.writes else "wb") as file:
            for offset in range(0, size, CHUNK_BYTES):
                length = min(CHUNK_BYTES, size - offset)
                chunk = torch.frombuffer(bytearray(file.read(length) if self.writes else length), dtype=torch.uint8)
                with _together():
                    distributed.broadcast(chunk, 0, group=self.control)
                if not self.writes:
                    file.write(chunk.numpy().data)


def join(
    place: Place | None, device: str = "auto", stop: StopSignal | None = None, limit_seconds: float = MEETING_SECONDS
) -> World:
    """Meet the other processes, those that this machine's launcher and others' have started. place: None for one alone.

    device: auto, cpu or cuda, see `devices`. Raises PartnersAbsent if those of other machines do not come within the
    limit, PartnerLost if one is gone again, DeviceUnusable, RecipeInvalid for more processes than GPUs, and Stopped if
    `stop` says so while they come.
    """
    # Else cuDNN may add in another order each time, and a resumed run in fp32 is not bit-equal; it costs no speed.
    torch.backends.cudnn.deterministic = True
    num_gpus = devices.num_gpus(device)
    if num_gpus and place and num_gpus < place.local_size:
        raise RecipeInvalid((f"DARKROOM_PROCESSES is {place.local_size}, but this machine has {num_gpus} GPUs",))
    if device == devices.CUDA:
        devices.check_gpu(place.local_rank if place else 0)
    if place is None:
        return World(0, 1, torch.device("cuda" if num_gpus else "cpu"))
    from accelerate import PartialState

    with _together():
        store = _store(place)
        if place.master:
            _meet(store, place, stop or StopSignal(), limit_seconds)
        state = PartialState(
            cpu=num_gpus == 0,
            backend="nccl" if num_gpus else "gloo",
            store=store,
            rank=place.rank,
            world_size=place.size,
        )
        control = distributed.new_group(backend="gloo", timeout=_PATIENCE)
    # accelerate's "cpu:0" is no place that a file of torch can be loaded to.
    own = state.device if num_gpus else torch.device("cpu")
    return World(place.rank, place.size, own, place.local_rank, place.local_size, place.folder, control)


def _store(place: Place) -> Store:
    """Where they exchange their addresses: a file on one machine, which needs no port."""
    if place.master is None:
        return FileStore(str(place.meeting_file), place.size)
    return TCPStore(*place.master, place.size, place.rank == 0, _PATIENCE, wait_for_workers=False)


def _meet(store: Store, place: Place, stop: StopSignal, limit_seconds: float) -> None:
    """Wait until all processes of all machines are here.

    Only the one that writes knows the limit: when it gives up its store goes, and the others notice that as a lost partner,
    so that the failure counts once.
    """
    key = "here/{}".format
    store.set(key(place.rank), "")
    begun = time.monotonic()
    missing = list(range(place.size))
    while missing := [rank for rank in missing if not store.check([key(rank)])]:
        stop.check()
        if place.rank == 0 and time.monotonic() - begun > limit_seconds:
            machines = sorted({rank // place.local_size for rank in missing})
            raise PartnersAbsent(
                f"after {limit_seconds:g} s {len(missing)} of {place.size} processes have not come, those of machines "
                f"{', '.join(map(str, machines))}: see why their pods do not run, or give the run one machine"
            )
        time.sleep(_LOOK_SECONDS)


def _in_chunks(tensors: Sequence[torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    """One message for many small tensors, and not one for all: that would need the memory of all gradients again."""
    chunk: list[torch.Tensor] = []
    size_bytes = 0
    for tensor in tensors:
        chunk.append(tensor)
        size_bytes += tensor.nbytes
        if size_bytes >= CHUNK_BYTES:
            yield chunk
            chunk, size_bytes = [], 0
    if chunk:
        yield chunk


@contextmanager
def _together() -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise PartnerLost(f"another process of this run has ended or cannot be reached: {error}") from error
