"""`darkroom caption` and `darkroom ask`: words about pictures."""

from pathlib import Path
from typing import Annotated

import typer
from darkroom.captioner.v1 import messages_pb2 as pb
from darkroom.trainer.v1 import session_pb2

from darkroom_cli.clients import Clients, connect
from darkroom_cli.commands.session import check_session
from darkroom_cli.output import JsonFlag, UsageProblem, print_table, progress_bar, readable_errors
from darkroom_cli.watching import follow


def caption(
    target: Annotated[str, typer.Argument(help="A session, or an image file.")],
    prefix: Annotated[str, typer.Option(help="Written before each caption, such as 'sks toy, '.")] = "",
    suffix: Annotated[str, typer.Option(help="Written after each caption.")] = "",
    replace: Annotated[bool, typer.Option("--replace", help="Write new captions over existing ones.")] = False,
    edit: Annotated[
        str, typer.Option("--set", help="Write this text as the caption of --image instead of asking the model.")
    ] = "",
    image: Annotated[str, typer.Option(help="With --set: the image of the session.")] = "",
    as_json: JsonFlag = False,
) -> None:
    """Caption the images of a session into captions/*.txt, or print the caption of an image file."""
    is_file = Path(target).is_file()
    if edit or not is_file:
        _check_target(target)
    with readable_errors(), connect() as clients:
        if edit:
            _set_caption(clients, target, image, edit)
            rows = [(image, edit, "")]
        elif is_file:
            request = pb.CaptionRequest(images=[pb.Image(data=Path(target).read_bytes())])
            rows = [(target, clients.captioner.Caption(request).captions[0].text, "")]
        else:
            rows = caption_session(clients, target, prefix, suffix, replace)
        print_table(("Image", "Caption", "Error"), rows, as_json)
        if any(row[2] for row in rows):
            raise typer.Exit(1)


def ask(
    image: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="An image file.")],
    questions: Annotated[list[str], typer.Argument(help="Questions, such as 'what color is the object?'.")],
    as_json: JsonFlag = False,
) -> None:
    """Ask questions about an image."""
    with readable_errors(), connect() as clients:
        data = image.read_bytes()
        request = pb.AnswerRequest(
            questions=[pb.Question(image=pb.Image(data=data), text=question) for question in questions]
        )
        answers = clients.captioner.Answer(request).answers
        rows = [(question, answer.text) for question, answer in zip(questions, answers, strict=True)]
        print_table(("Question", "Answer"), rows, as_json)


def caption_session(
    clients: Clients, session: str, prefix: str = "", suffix: str = "", replace: bool = False
) -> list[tuple[str, str, str]]:
    """Caption a session with a bar; (image, caption, error) in order of image.

    A captioner that goes away meanwhile is waited for. Captions that are kept are not made again; with replace all are.
    """
    request = pb.CaptionSessionRequest(
        session=f"sessions/{session}",
        prefix=prefix,
        suffix=suffix,
        existing=pb.EXISTING_CAPTIONS_REPLACE if replace else pb.EXISTING_CAPTIONS_KEEP,
    )
    rows = {}
    with progress_bar() as bar:
        task = bar.add_task("captioning", total=None, note="")
        for outcome in follow(lambda: clients.captioner.CaptionSession(request), must_answer=True):
            bar.update(task, completed=outcome.num_done, total=outcome.num_total, note=outcome.caption)
            rows[outcome.image] = (outcome.image.rsplit("/", 1)[1], outcome.caption, outcome.error)
    return sorted(rows.values())


def _check_target(target: str) -> None:
    """Raises typer.BadParameter for what can be no session, so most likely is the misspelt name of a file."""
    try:
        check_session(target)
    except typer.BadParameter as error:
        raise typer.BadParameter(f"there is no file {target!r}, and {error.message}") from None


def _set_caption(clients: Clients, session: str, image: str, text: str) -> None:
    if not image:
        raise UsageProblem("--set needs --image, the file name of the image in the session")
    clients.sessions.SetCaption(session_pb2.SetCaptionRequest(image=f"sessions/{session}/images/{image}", text=text))
