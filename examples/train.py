"""Trains a model on a folder of photos over gRPC, watching it: python examples/train.py SESSION FOLDER [STEPS]"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
from darkroom.trainer.v1 import session_pb2, training_pb2
from darkroom.trainer.v1.session_pb2_grpc import SessionServiceStub
from darkroom.trainer.v1.training_pb2_grpc import TrainingServiceStub

if len(sys.argv) < 3:
    sys.exit(__doc__)
session, folder = sys.argv[1:3]
steps = int(sys.argv[3]) if len(sys.argv) > 3 else 200
token = [("authorization", f"Bearer {os.environ['DARKROOM_TOKEN']}")]


def parts(photo: Path) -> Iterator[session_pb2.UploadImageRequest]:
    """One upload: a header, then the bytes in pieces of at most 1 MiB."""
    header = session_pb2.UploadImageHeader(session=f"sessions/{session}", filename=photo.name)
    yield session_pb2.UploadImageRequest(header=header)
    data = photo.read_bytes()
    for start in range(0, len(data), 1 << 20):
        yield session_pb2.UploadImageRequest(chunk=data[start : start + (1 << 20)])


with grpc.insecure_channel(os.environ["DARKROOM_TRAINER"]) as channel:
    sessions, training = SessionServiceStub(channel), TrainingServiceStub(channel)
    sessions.CreateSession(session_pb2.CreateSessionRequest(session_id=session), metadata=token)
    for photo in sorted(Path(folder).glob("*.png")):
        image = sessions.UploadImage(parts(photo), metadata=token)
        print(f"uploaded {image.name}, {image.width_px}x{image.height_px}")
    recipe = training_pb2.Recipe(
        base_model="sd15-tiny",
        instance_prompt="a photo of sks toy",
        text_encoder=training_pb2.StageSettings(steps=0, learning_rate=1e-4),
        unet=training_pb2.StageSettings(steps=steps, learning_rate=2e-4),
    )
    request = training_pb2.CreateRunRequest(parent=f"sessions/{session}", recipe=recipe)
    run = training.CreateRun(request, metadata=token)
    for event in training.WatchRun(training_pb2.WatchRunRequest(name=run.name), metadata=token):
        if event.HasField("progress"):
            progress = event.progress
            print(f"step {progress.step}/{progress.num_steps}  loss {progress.smoothed_loss:.4f}")
        elif event.HasField("run"):
            run = event.run
    print(training_pb2.RunState.Name(run.state), run.checkpoint, run.error)
    sys.exit(run.state != training_pb2.RUN_STATE_SUCCEEDED)
