"""Every way a run can fail, in words for the person who ordered it. `exits` turns them into exit codes.

RunFailed
  InputWrong          repeating cannot help
    RecipeInvalid       the order itself
    DeviceUnusable      torch cannot compute on the device of the order
    PictureInvalid      an image, a caption, or a setting that does not fit them
    Diverged            the loss or the weights are no longer finite
    BaseModelInvalid    the base model is incomplete or of another architecture
    SessionUnusable     the session does not exist or is empty
    ResumePointUnusable something has changed since the run's resume point was written
    MemoryTooSmall      the device cannot hold this training
  NotOurs             another run has the checkpoint's id, or another process this run
    WriterAlive         another process is carrying out this run
    LeaseLost           another process has taken this run over
  PartnerLost         one of the processes that train together is gone
  PartnersAbsent      some of them never came
  Stopped             SIGTERM arrived
    PartnerStopped      it arrived at another one of the processes that train together
"""

from dreambooth.wording import first_few


class RunFailed(Exception):
    """Root of all. The message says what was found, what was expected and what to do."""


class InputWrong(RunFailed):
    """The same input fails again: do not retry."""


class RecipeInvalid(InputWrong):
    """The environment or the recipe cannot be carried out. problems: one sentence for each mistake."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        self.problems = problems
        super().__init__("the order is not valid: " + "; ".join(problems))


class DeviceUnusable(InputWrong):
    """The order names a device that torch does not find, or cannot compute on."""


class PictureInvalid(InputWrong):
    """Images, captions or the resolution. problems: one sentence for each, beginning with the file's name."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        self.problems = problems
        super().__init__("; ".join(first_few(problems, "problems")))


class Diverged(InputWrong):
    """Training left the finite numbers."""


class BaseModelInvalid(InputWrong):
    """The base model has missing or unreadable files, or an architecture this program does not train."""


class SessionUnusable(InputWrong):
    """No such session, or one without images."""


class ResumePointUnusable(InputWrong):
    """The run cannot go on exactly where it was."""


class MemoryTooSmall(InputWrong):
    """The predicted memory exceeds what the device has."""


class NotOurs(RunFailed):
    """The checkpoint id belongs to another run; the two below: this run to another process."""


class WriterAlive(NotOurs):
    """Another process holds this run and is alive; nothing was touched."""


class LeaseLost(NotOurs):
    """Another process took this run over, or its record was deleted; this one may write nothing any more."""


class PartnerLost(RunFailed):
    """Of several processes that train together another one has ended: so does this one, and the run starts again."""


class PartnersAbsent(RunFailed):
    """Processes of other machines did not come in time. No end of theirs counts, so this one's has to."""


class Stopped(RunFailed):
    """The process was asked to end and did so between two steps."""


class PartnerStopped(Stopped):
    """Another process of this run was asked to end, and with it all: this one was not, so its end is none of its own."""
