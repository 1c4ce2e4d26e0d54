"""`darkroom models`: what can draw, and copying models from one folder into another."""

from pathlib import Path
from typing import Annotated

import typer

from darkroom_cli.commands.generate import models as list_models
from darkroom_cli.model_folders import copy_model, model_folders
from darkroom_cli.output import JsonFlag, print_table, progress_bar, readable_errors

app = typer.Typer(
    invoke_without_command=True, help="List the models: base models of the registry and every published checkpoint."
)


@app.callback()
def models(context: typer.Context, as_json: JsonFlag = False) -> None:
    """List the models unless a command follows."""
    if context.invoked_subcommand is None:
        list_models(as_json)


@app.command()
def copy(
    source: Annotated[Path, typer.Argument(help="A folder of model folders.", exists=True, file_okay=False)],
    target: Annotated[Path, typer.Argument(help="The folder that gets them; it is made if need be.", file_okay=False)],
    as_json: JsonFlag = False,
) -> None:
    """Copy every model of a folder into another one. Safe to repeat: what is there stays, a half copy is made anew."""
    with readable_errors():
        found = model_folders(source)
        target.mkdir(parents=True, exist_ok=True)
        rows = []
        with progress_bar() as bar:
            task = bar.add_task("copying", total=len(found), note="")
            for model in found:
                bar.update(task, note=model.name)
                state = "copied" if copy_model(model, target) else "present"
                rows.append((model.name, str(target / model.name), model.num_bytes, state))
                bar.advance(task)
        print_table(("Model", "Folder", "Bytes", "State"), rows, as_json)
