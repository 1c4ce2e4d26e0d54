"""`python -m dreambooth`: one training run, ordered by the environment, answered by the exit code (see `exits`)."""

import argparse
import logging
import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from artifacts.checkpoints import Checkpoints
from artifacts.errors import ArtifactError
from artifacts.store import ObjectStore
from chassis import config as settings
from chassis import logs, settings_table

from dreambooth import exits, full_disk, inputs, launcher, ownership, recipe, workers
from dreambooth.config import ProgramConfig
from dreambooth.curves import Curves
from dreambooth.errors import PartnerLost, RecipeInvalid, Stopped
from dreambooth.exits import StopSignal
from dreambooth.lease import Lease
from dreambooth.recipe import Recipe
from dreambooth.records import Records
from dreambooth.watch import Watch
from dreambooth.workers import Place

_log = logging.getLogger("dreambooth")

# How long the last records may wait for the store; less when stopping, to stay within the usual grace of 30 s.
_CLOSE_SECONDS = 60.0
_CLOSE_SECONDS_STOPPED = 10.0


def main() -> int:
    """Read the order, carry it out, return the exit code."""
    stop = StopSignal()
    stop.listen()
    place = workers.here()
    if place:
        workers.end_with_launcher()
    parser = argparse.ArgumentParser(
        prog="python -m dreambooth",
        description=__doc__,
        epilog=settings_table.as_text(ProgramConfig),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--accept-inexact",
        action="store_true",
        help="go on from a resume point although images, captions, base model, recipe or libraries have changed since; "
        "the checkpoint is marked inexact (the same as DARKROOM_ACCEPT_INEXACT=true)",
    )
    arguments = parser.parse_args()
    try:
        config = settings.read(ProgramConfig)
    except settings.ConfigError as error:
        print(error, file=sys.stderr)
        return exits.code(error)
    logs.configure(config.log_level, config.log_format)
    _prepare_libraries()
    config = replace(config, accept_inexact=config.accept_inexact or arguments.accept_inexact)
    if place:
        return _carry_out(config, place, place.folder, stop)
    if config.num_workers > 1:
        return launcher.run(config, sys.argv[1:], stop)
    with tempfile.TemporaryDirectory(prefix="dreambooth-") as scratch:
        return _carry_out(config, None, Path(scratch), stop)


def _carry_out(config: ProgramConfig, place: Place | None, scratch: Path, stop: StopSignal) -> int:
    store = ObjectStore(config.store)
    try:
        if place and place.rank > 0:
            _compute(config, store, place, stop)
            return exits.FINISHED
        with Lease.acquire(store, config.folder, stop) as lease:
            return _write(config, store, place, lease, scratch, stop)
    except Exception as error:  # noqa: BLE001 - every end of this program is an exit code and a reason
        code = exits.code(error)
        _log.error("%s", _words(error, code, scratch), exc_info=error if code == exits.UNKNOWN else None)
        return code


def _compute(config: ProgramConfig, store: ObjectStore, place: Place, stop: StopSignal) -> None:
    """A process that takes its share of the arithmetic and writes nothing."""
    order = recipe.parse(config.recipe)
    _leave_out_bitsandbytes(order)
    from dreambooth import training  # noqa: F401 - imported while the process that writes looks at its order

    def is_finished() -> bool:
        return ownership.is_published(Checkpoints(store), order.checkpoint, config.run)

    if workers.wait_for_writer(place, stop, is_finished):
        _train(config, order, store, place, None, None, place.folder, stop)


def _write(
    config: ProgramConfig, store: ObjectStore, place: Place | None, lease: Lease, scratch: Path, stop: StopSignal
) -> int:
    """The process that writes the run."""
    records = Records(store, config.folder, Curves(scratch / "tensorboard"))
    try:
        order = recipe.parse(config.recipe)
        if ownership.take_over(Checkpoints(store), order.checkpoint, config.run, lease):
            records.message(f"checkpoint {order.checkpoint!r} is already published: nothing to do")
        else:
            _train(config, order, store, place, records, lease, scratch, stop)
        # Also on a repeated start: the one before may have died between publishing and this line.
        records.finished(order.checkpoint)
        code, patience_seconds = exits.FINISHED, _CLOSE_SECONDS
    except Exception as error:  # noqa: BLE001 - every end of this program is an exit code and a reason
        code = exits.code(error)
        patience_seconds = _CLOSE_SECONDS_STOPPED if code == exits.STOPPED else _CLOSE_SECONDS
        _explain(records, error, code, _words(error, code, scratch))
    try:
        records.close(patience_seconds)
    except ArtifactError as error:
        _log.error("the last records are lost: %s", error)
        return code or exits.code(error)
    return code


def _train(
    config: ProgramConfig,
    order: Recipe,
    store: ObjectStore,
    place: Place | None,
    records: Records | None,
    lease: Lease | None,
    scratch: Path,
    stop: StopSignal,
) -> None:
    def warn(text: str) -> None:
        if records:
            records.message(text, "warning")

    def gather() -> inputs.Inputs:
        watch = Watch(records.message, stop) if records else Watch(stop=stop)
        return inputs.gather(store, config.session, order, scratch, warn, watch)

    if order.reference_order and config.num_workers > 1:
        raise RecipeInvalid((f"reference_order draws for one process, and this run has {config.num_workers}",))
    gathered = gather() if records else None
    stop.check()
    _leave_out_bitsandbytes(order)
    from dreambooth import training, world  # imports torch: seconds that a refused or finished run need not wait
    from dreambooth.order import Order

    stop.check()
    try:
        everyone = world.join(place, config.device, stop)
        everything = Order(
            run=config.run,
            recipe=order,
            inputs=everyone.once_a_machine("inputs", lambda: gathered or gather()),
            store=store,
            scratch=scratch,
            world=everyone,
            records=records,
            lease=lease,
            accept_inexact=config.accept_inexact,
            save_seconds=config.save_seconds,
        )
        training.run(everything, stop)
    except PartnerLost:
        stop.check()  # the others were asked, too, and were faster
        raise


def _leave_out_bitsandbytes(order: Recipe) -> None:
    """diffusers and peft import it wherever it is installed, and with it torch's compiler: a tenth of the start."""
    if order.optimizer != recipe.ADAMW_8BIT:
        sys.modules.setdefault("bitsandbytes", None)  # type: ignore[arg-type]


def _words(error: Exception, code: int, scratch: Path) -> str:
    """What a person is told about the end."""
    if code == exits.UNKNOWN:
        return f"internal error: {type(error).__name__}: {error}"
    return full_disk.advice(scratch, error) if full_disk.is_full_disk(error) else str(error)


def _explain(records: Records, error: Exception, code: int, text: str) -> None:
    """Tell the person; the traceback of a mistake of ours goes to the log."""
    if code == exits.UNKNOWN:
        _log.error("internal error", exc_info=error)
    try:
        records.message(text, "warning" if isinstance(error, Stopped) else "error")
    except ArtifactError as refused:
        _log.error("the store does not take the reason: %s", refused)


def _prepare_libraries() -> None:
    """Settings that torch and the model libraries read when they are imported."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # idle threads sleep: the cores are shared with other services
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # everything comes from the bucket
    # When imported (also by peft) it warns of a missing kernel for 4-bit weights, which nobody here has.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


if __name__ == "__main__":
    sys.exit(main())
