"""Entry of the `darkroom` command."""

import typer

from darkroom_cli.commands import caption, convert, crop, generate, session, train
from darkroom_cli.demo.command import demo
from darkroom_cli.launcher.command import up

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Darkroom turns a folder of photos into a personal image model and serves it: caption, crop, train, convert, generate.",
)
app.command()(up)
app.command()(demo)
app.add_typer(session.app, name="session")
app.command()(caption.caption)
app.command()(caption.ask)
app.command()(crop.crop)
app.command()(train.train)
app.add_typer(train.runs_app, name="runs")
app.command()(convert.convert)
app.command()(convert.inspect)
app.command()(generate.models)
app.command()(generate.generate)


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
