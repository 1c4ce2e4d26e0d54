"""Describes a picture over gRPC: python examples/describe.py PICTURE [QUESTION ...]"""

import os
import sys
from pathlib import Path

import grpc
from darkroom.captioner.v1 import messages_pb2 as pb
from darkroom.captioner.v1.service_pb2_grpc import CaptionerServiceStub

if len(sys.argv) < 2:
    sys.exit(__doc__)
picture, *questions = sys.argv[1:]
image = pb.Image(data=Path(picture).read_bytes())
token = [("authorization", f"Bearer {os.environ['DARKROOM_TOKEN']}")]

with grpc.insecure_channel(os.environ["DARKROOM_CAPTIONER"]) as channel:
    captioner = CaptionerServiceStub(channel)
    try:
        captions = captioner.Caption(pb.CaptionRequest(images=[image]), metadata=token).captions
        print("caption:", captions[0].text)
        if questions:
            request = pb.AnswerRequest(questions=[pb.Question(image=image, text=question) for question in questions])
            for question, answer in zip(questions, captioner.Answer(request, metadata=token).answers, strict=True):
                print(f"{question} {answer.text}")
    except grpc.RpcError as error:
        sys.exit(f"{error.code().name}: {error.details()}")
