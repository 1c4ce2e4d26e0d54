"""Everything that can be wrong with a checkpoint or a request, in words the edge can put into its error table.

    ConverterError
      CheckpointMalformed    the bytes are not a file of their format, or contradict themselves
        UnsafePickle           a pickle asks for something other than tensors
      NotConvertible         both layouts are fine, but the one cannot become the other
        PrecisionOverflow      values do not fit the precision asked for
        AncestorMissing        no Diffusers ancestor that could lend its configuration
      ProofFailed            the result read back from the store is not what was written
      ConversionExists       the id is taken by another conversion
      ConversionFinished     too late to cancel

Damage and absence are said by `artifacts.errors` (DigestMismatch, NotFound).
"""


class ConverterError(Exception):
    """Root of this package's errors."""


class CheckpointMalformed(ConverterError):
    """`file` is not what its name or format says; `problem` says why."""

    def __init__(self, file: str, problem: str) -> None:
        super().__init__(f"{file}: {problem}")
        self.file = file
        self.problem = problem


class UnsafePickle(CheckpointMalformed):
    """The pickle in `file` names `refused`, which is not needed to describe tensors. Nothing of it was executed."""

    def __init__(self, file: str, refused: str) -> None:
        super().__init__(
            file,
            f"the pickle asks for {refused!r}, which is not part of a checkpoint; nothing was executed, do not load this file",
        )
        self.refused = refused


class NotConvertible(ConverterError):
    """`source` cannot become `target`; `problem` names both sides and what would help."""

    def __init__(self, source: str, target: str, problem: str) -> None:
        super().__init__(f"{source} cannot become {target}: {problem}")
        self.source = source
        self.target = target


class PrecisionOverflow(NotConvertible):
    """`num_values` values of `tensor` are finite in the source and infinite in the target precision."""

    def __init__(self, tensor: str, num_values: int, source: str, target: str) -> None:
        problem = f"{num_values} values of {tensor!r} are too large for {target}; choose bf16 or fp32"
        super().__init__(f"a tensor in {source}", target, problem)
        self.tensor = tensor
        self.num_values = num_values


class AncestorMissing(NotConvertible):
    """A Diffusers folder needs configuration and tokenizer, which only a Diffusers ancestor has."""


class ProofFailed(ConverterError):
    """`tensor` read back from the store differs from what was written; `problem` says how."""

    def __init__(self, tensor: str, problem: str) -> None:
        super().__init__(f"the result does not equal its source: tensor {tensor!r} {problem}; nothing was published")
        self.tensor = tensor


class ConversionExists(ConverterError):
    """The conversion or checkpoint `name` exists and was made from something else."""

    def __init__(self, name: str, existing: str, asked: str) -> None:
        super().__init__(f"{name!r} exists and is {existing}, not {asked}; give another checkpoint_id")
        self.name = name


class ConversionFinished(ConverterError):
    """The conversion `name` is `state` already and cannot be cancelled."""

    def __init__(self, name: str, state: str) -> None:
        super().__init__(f"conversion {name!r} is {state}; only a pending or running one can be cancelled")
        self.name = name
        self.state = state
