"""Carries out a plan: streams every tensor from store to store, proves the result, publishes it.

`jobs` calls this in a worker thread. Memory does not grow with the model: chunks of 1 MiB flow from one download to
one upload. A tensor's digest is taken while its values are written; then the result is read back from the store as any
reader would, and each digest is compared before anybody can see the checkpoint.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from artifacts.checkpoints import Checkpoints, CheckpointWriter, Manifest

from converter import canonical, casting, ckpt_writer, safetensors_format
from converter.errors import ProofFailed
from converter.plan import OutputFile, OutputTensor, Plan
from converter.reading import FileReader
from converter.sources import open_checkpoint


class Progress(Protocol):
    """Is told what has been done. Every method may raise to stop the conversion; nothing is published then."""

    def wrote(self, num_bytes: int) -> None:
        """Values went into the upload."""

    def wrote_tensor(self) -> None:
        """A tensor is complete."""

    def checked(self) -> None:
        """A chunk of the result was read back."""

    def proved_tensor(self) -> None:
        """A tensor read back has the digest it had when it was written."""

    def before_publishing(self) -> None:
        """Last chance to stop."""


@dataclass(frozen=True)
class Digest:
    """What a tensor is: dtype, canonical shape, and sha256 of its values."""

    dtype: str
    shape: tuple[int, ...]
    sha256: str


def convert(
    checkpoints: Checkpoints, plan: Plan, checkpoint_id: str, recipe: Mapping[str, Any], progress: Progress
) -> Manifest:
    """Write, prove and publish the checkpoint.

    Raises AlreadyExists if the id is published, DigestMismatch for a damaged source or result, PrecisionOverflow,
    ProofFailed, StoreUnavailable, and whatever `progress` raises. Unless it returns, nothing is visible.
    """
    with checkpoints.begin(checkpoint_id, recipe=recipe, **plan.fields) as writer:
        digests = _write(checkpoints, plan, writer, progress)
        _prove(checkpoints, writer.draft, digests, progress)
        progress.before_publishing()
        return writer.publish({"tensors_sha256": tensors_sha256(digests), "num_tensors": len(digests)})


def tensors_sha256(digests: Mapping[str, Digest]) -> str:
    """One digest for all tensors: sha256 over the sorted lines "name<TAB>dtype<TAB>shape<TAB>sha256".

    Equal for equal models in any layout and order, because names and shapes are canonical.
    """
    total = hashlib.sha256()
    for name in sorted(digests):
        digest = digests[name]
        total.update(f"{name}\t{digest.dtype}\t{list(digest.shape)}\t{digest.sha256}\n".encode())
    return total.hexdigest()


def _write(checkpoints: Checkpoints, plan: Plan, writer: CheckpointWriter, progress: Progress) -> dict[str, Digest]:
    digests: dict[str, Digest] = {}
    readers: dict[str, FileReader] = {}
    for file in plan.files:
        with writer.open(file.path) as output:
            _write_file(file, output, _Values(readers, digests, progress))
    for reader in readers.values():
        reader.finish()
    for path, text in plan.texts.items():
        writer.add_bytes(path, text)
    for path in plan.copies:
        assert plan.lender is not None
        with writer.open(path) as output:
            for chunk in checkpoints.reader(plan.lender, path):
                output.write(chunk)
                progress.checked()
    return digests


def _write_file(file: OutputFile, output: ckpt_writer.Output, values: "_Values") -> None:
    if file.format == "ckpt":
        ckpt_writer.write(output, file.tensors, lambda index: values.of(file.tensors[index]))
        return
    described = ((tensor.name, tensor.dtype, tensor.shape) for tensor in file.tensors)
    output.write(safetensors_format.build_header(described, file.metadata))
    for tensor in file.tensors:
        for chunk in values.of(tensor):
            output.write(chunk)


@dataclass(frozen=True)
class _Values:
    """The values of output tensors, read from their sources, cast, and remembered by digest."""

    readers: dict[str, FileReader]
    digests: dict[str, Digest]
    progress: Progress

    def of(self, tensor: OutputTensor) -> Iterator[bytes | memoryview]:
        """The bytes to write, in chunks."""
        if tensor.stored is None:
            yield tensor.constant
            return
        file = tensor.stored.file
        if file.key not in self.readers:
            self.readers[file.key] = FileReader(file)
        reader = self.readers[file.key]
        chunks: Iterable[bytes | memoryview] = reader.chunks(tensor.stored)
        if tensor.stored.dtype != tensor.dtype:
            chunks = casting.cast(chunks, tensor.stored.dtype, tensor.dtype, tensor.stored.name)
        digest = hashlib.sha256()
        for chunk in chunks:
            digest.update(chunk)
            yield chunk
            self.progress.wrote(len(chunk))
        self.digests[tensor.canonical_name] = Digest(tensor.dtype, tensor.canonical_shape, digest.hexdigest())
        self.progress.wrote_tensor()


def _prove(checkpoints: Checkpoints, draft: Manifest, written: Mapping[str, Digest], progress: Progress) -> None:
    """Read the result back through the same door as any reader, and compare every tensor with what was written."""
    source = open_checkpoint(checkpoints, draft)
    model = canonical.as_sd15(source)
    by_file: dict[str, list[canonical.CanonicalTensor]] = {}
    for tensor in model.tensors:
        by_file.setdefault(tensor.stored.file.key, []).append(tensor)
    names = {tensor.name for tensor in model.tensors}
    if names != set(written):
        raise ProofFailed(min(names ^ set(written)), "is in one of them alone")
    for tensors in by_file.values():
        reader = FileReader(tensors[0].stored.file)
        for tensor in sorted(tensors, key=lambda tensor: tensor.stored.order):
            digest = hashlib.sha256()
            for chunk in reader.chunks(tensor.stored):
                digest.update(chunk)
                progress.checked()
            found = Digest(tensor.stored.dtype, tensor.shape, digest.hexdigest())
            if found != written[tensor.name]:
                raise ProofFailed(tensor.name, f"is {found}, written was {written[tensor.name]}")
            progress.proved_tensor()
        reader.finish()
