"""`darkroom generate` and `darkroom models`: pictures, and what can draw them."""

from pathlib import Path
from typing import Annotated

import typer
from darkroom.webui.v1 import generation_pb2 as pb
from darkroom.webui.v1 import registry_pb2

from darkroom_cli.clients import Clients, connect
from darkroom_cli.output import JsonFlag, UsageProblem, print_table, progress_bar, readable_errors


def generate(
    prompt: Annotated[str, typer.Argument(help="What to draw.")],
    model: Annotated[str, typer.Option(help="Model by name, title or hash; see `darkroom models`.")] = "sd15-tiny",
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("out"),
    negative: Annotated[str, typer.Option(help="What not to draw.")] = "",
    images: Annotated[int, typer.Option(help="Number of pictures.")] = 1,
    steps: Annotated[int, typer.Option(help="Denoising steps.")] = 20,
    cfg: Annotated[float, typer.Option(help="Guidance scale.")] = 7.0,
    sampler: Annotated[str, typer.Option(help="Sampler by its A1111 name.")] = "",
    seed: Annotated[int, typer.Option(help="Seed of the first picture; -1 is random.")] = -1,
    width: Annotated[int, typer.Option(help="Width in pixels; 0: the model's own.")] = 0,
    height: Annotated[int, typer.Option(help="Height in pixels; 0: the model's own.")] = 0,
    canny: Annotated[
        Path | None, typer.Option(help="Follow the edges of this picture.", exists=True, dir_okay=False)
    ] = None,
    init: Annotated[
        Path | None, typer.Option(help="Start from this picture (img2img).", exists=True, dir_okay=False)
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Draw pictures with a model. Ctrl-C cancels."""
    with readable_errors(), connect() as clients:
        request = pb.GenerateRequest(
            model=f"models/{model.removeprefix('models/').removeprefix('checkpoints/')}",
            prompt=prompt,
            negative_prompt=negative,
            num_images=images,
            steps=steps,
            cfg_scale=cfg,
            sampler=sampler,
            seed=seed,
            width_px=width,
            height_px=height,
            init_image=init.read_bytes() if init else b"",
            control_units=[pb.ControlUnit(control_net="canny", image=canny.read_bytes())] if canny else [],
        )
        out.mkdir(parents=True, exist_ok=True)  # Before the drawing: pictures without a place would be lost.
        rows = []
        for image in run_generation(clients, request).images:
            path = out / f"{image.seed}.png"
            path.write_bytes(image.data)
            rows.append((str(path), image.seed, image.infotext.splitlines()[-1]))
        print_table(("File", "Seed", "Infotext"), rows, as_json)


def models(as_json: JsonFlag = False) -> None:
    """List the models: base models of the registry and every published checkpoint."""
    with readable_errors(), connect() as clients:
        found: list[registry_pb2.Model] = []
        token = ""
        while True:
            page = clients.models.ListModels(registry_pb2.ListModelsRequest(page_token=token))
            found += page.models
            token = page.next_page_token
            if not token:
                break
        rows = [
            (
                model.name.removeprefix("models/"),
                model.architecture,
                f"{model.native_resolution_px} px",
                model.base_model,
                "yes" if model.available else "not imported",
            )
            for model in found
        ]
        print_table(("Model", "Architecture", "Native", "Base model", "Available"), rows, as_json, found)


def run_generation(clients: Clients, request: pb.GenerateRequest) -> pb.GenerationResult:
    """Generate with a bar. Raises UsageProblem if the service ends without pictures."""
    with progress_bar() as bar:
        task = bar.add_task("drawing", total=None, note="")
        for response in clients.generation.Generate(request):
            if response.HasField("result"):
                return response.result
            progress = response.progress
            waiting = f"{progress.queue_position} before this one" if progress.queue_position else ""
            bar.update(task, completed=progress.step, total=progress.num_steps or None, note=waiting)
    raise UsageProblem("the service ended the generation without pictures; its log says why")
