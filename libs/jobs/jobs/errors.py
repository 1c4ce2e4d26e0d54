"""What can be wrong with an order for a run."""


class JobsError(Exception):
    """Root of this library's errors."""


class FieldsInvalid(JobsError):
    """Fields contradict each other. Attribute: problems, pairs of field path and description."""

    def __init__(self, *problems: tuple[str, str]) -> None:
        super().__init__("; ".join(f"{field}: {text}" for field, text in problems))
        self.problems = problems


class FileInvalid(JobsError):
    """A YAML file is wrong. Attributes: source, its name; problems, one sentence for each mistake, each with its line."""

    def __init__(self, source: str, problems: tuple[str, ...]) -> None:
        noun = "mistake" if len(problems) == 1 else "mistakes"
        super().__init__(f"{source} has {len(problems)} {noun}:\n" + "\n".join(f"  {text}" for text in problems))
        self.source = source
        self.problems = problems
