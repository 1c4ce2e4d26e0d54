"""Entry of the `darkroom` command."""

import typer

from darkroom_cli.commands import (
    bucket,
    caption,
    convert,
    crop,
    generate,
    models,
    render,
    runs,
    session,
    session_archive,
    smoke,
    train,
)
from darkroom_cli.demo.command import demo
from darkroom_cli.launcher.command import up

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Darkroom turns a folder of photos into a personal image model and serves it: caption, crop, train, convert, generate.",
    epilog="Start with `darkroom up`; the other commands talk to it. DARKROOM_DATA names its data folder, by default ./data.",
)
_HERE, _PHOTOS, _TRAINING, _PICTURES = "On this machine", "Photos and words", "Training", "Models and pictures"
_CLUSTER = "In a cluster"
app.command(rich_help_panel=_HERE)(up)
app.command(rich_help_panel=_HERE)(demo)
session.app.command("export")(session_archive.export_session)
session.app.command("import")(session_archive.import_session)
app.add_typer(session.app, name="session", rich_help_panel=_PHOTOS)
app.command(rich_help_panel=_PHOTOS)(caption.caption)
app.command(rich_help_panel=_PHOTOS)(caption.ask)
app.command(rich_help_panel=_PHOTOS)(crop.crop)
app.command(rich_help_panel=_TRAINING)(train.train)
app.add_typer(runs.runs_app, name="runs", rich_help_panel=_TRAINING)
app.add_typer(runs.runs_app, name="run", hidden=True)  # people say `darkroom run show`
app.command(rich_help_panel=_PICTURES)(convert.convert)
app.command(rich_help_panel=_PICTURES)(convert.inspect)
app.add_typer(models.app, name="models", rich_help_panel=_PICTURES)
app.command(rich_help_panel=_PICTURES)(generate.generate)
app.add_typer(bucket.app, name="bucket", rich_help_panel=_CLUSTER)
app.command(rich_help_panel=_CLUSTER)(render.render)
app.command(rich_help_panel=_CLUSTER)(smoke.smoke)


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
