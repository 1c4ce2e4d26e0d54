"""`darkroom caption` and `darkroom crop` over a session whose service goes away in the middle."""

from collections.abc import Iterator
from dataclasses import fields

import grpc
import pytest
from darkroom.captioner.v1 import messages_pb2 as captioner_pb
from darkroom.trainer.v1 import session_pb2 as trainer_pb
from darkroom_cli.clients import Clients
from darkroom_cli.commands.caption import caption_session
from darkroom_cli.commands.crop import crop_session

from tests.darkroom_cli.conftest import TrainerForCommands
from tests.darkroom_cli.test_output import Failed
from tests.darkroom_cli.test_session_archive import Breaking, clients


class Captioner:
    """A captioner for a session of three images that goes away once, after so many of them, and keeps their captions."""

    def __init__(self, num_answers: int) -> None:
        self._left = num_answers
        self._kept: set[str] = set()
        self.num_calls = 0

    def CaptionSession(
        self, request: captioner_pb.CaptionSessionRequest
    ) -> Iterator[captioner_pb.CaptionSessionResponse]:
        self.num_calls += 1
        for number in range(3):
            if self.num_calls == 1 and number == self._left:
                raise Failed(grpc.StatusCode.UNAVAILABLE, "the server is shutting down")
            image = f"{request.session}/images/{number}.png"
            skipped = image in self._kept
            self._kept.add(image)
            yield captioner_pb.CaptionSessionResponse(image=image, caption=f"caption {number}", skipped=skipped)

    def clients(self) -> Clients:
        """Stubs of which only these are used."""
        return Clients(**dict.fromkeys((field.name for field in fields(Clients)), None) | {"captioner": self})


def test_captioning_goes_on_and_tells_each_image_once() -> None:
    captioner = Captioner(num_answers=2)
    rows = caption_session(captioner.clients(), "toy")
    assert rows == [(f"{number}.png", f"caption {number}", "") for number in range(3)]
    assert captioner.num_calls == 2


def test_a_captioner_that_was_never_there_is_not_waited_for() -> None:
    captioner = Captioner(num_answers=0)
    with pytest.raises(Failed):
        caption_session(captioner.clients(), "toy")
    assert captioner.num_calls == 1


def test_cropping_goes_on_and_tells_how_each_image_was_cropped(trainer: TrainerForCommands) -> None:
    trainer.session(num_photos=3)
    breaking = Breaking(trainer.sessions, "ApplyCrop", 2)
    results = crop_session(clients(breaking), "toy", 128)
    assert len(breaking.asked) == 2
    assert [result.image.rsplit("/", 1)[1] for result in results] == ["0.png", "1.png", "2.png"]
    # Of the third image only the answer was lost, so now it is what it shall be.
    assert [result.method == trainer_pb.CROP_METHOD_UNCHANGED for result in results] == [False, False, True]
