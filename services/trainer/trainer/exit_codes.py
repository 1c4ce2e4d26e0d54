"""Exit codes of a Job program in words; docs/exit-codes.md is normative."""

_MEANINGS = {
    69: "the resume point does not fit what is here now, a record is damaged, or the machine is too small",
    75: "the object store or the other machines of the run cannot be reached",
    76: "another process that trains this run has ended",
    77: "out of memory",
    78: "another process carries out the run",
    137: "killed, perhaps for its memory",
    143: "stopped by SIGTERM",
}


def describe(exit_code: int) -> str:
    """The code with its meaning, such as "exit code 77: out of memory"."""
    meaning = _MEANINGS.get(exit_code, "the input is wrong" if 64 <= exit_code <= 69 else "")
    return f"exit code {exit_code}: {meaning}" if meaning else f"exit code {exit_code}"
