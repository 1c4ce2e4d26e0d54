"""Starting a run again that is over, from its newest resume point on. `training` calls this.

A run that is over does not keep its session: others may take it while this one is made one that is not over. So the lock is
taken before and confirmed after; in between nothing is executed, and whoever loses leaves the run as it was.
"""

from trainer import session_lock
from trainer.errors import RunActive, RunElsewhere, RunFinished
from trainer.runs import Runs, RunState


def resume(runs: Runs, name: str, accept_inexact: bool, owner: str) -> bool:
    """Take back the end of a run; whether it was over and this call did it. Safe to repeat, also at once.

    owner: the machine that asks. Raises NotFound, RunFinished, RunElsewhere, RunActive.
    """
    run = runs.state(runs.manifest(name)[0])
    if not run.finished:
        return False
    if run.state == RunState.SUCCEEDED:
        raise RunFinished(name, run.state, "resumed")
    if run.spec.owner != owner:
        raise RunElsewhere(name, run.spec.owner or "another trainer")
    session = run.spec.session
    etag = session_lock.take(runs, session, name)
    before = runs.resume(name, accept_inexact)
    if before is None:
        return False
    try:
        session_lock.confirm(runs, session, name, etag)
    except RunActive:
        runs.write_status(name, before)
        raise
    return True
