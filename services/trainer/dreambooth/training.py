"""One run from its order to its checkpoint: the table of contents of this program.

`__main__` calls `run`. Everything slow to import is imported here, after the order was found to be good.
"""

import time

from artifacts.checkpoints import Checkpoints

from dreambooth import class_images, identity, lora, memory, parts, plan, point_files, publish
from dreambooth.exits import StopSignal
from dreambooth.helper import Helper
from dreambooth.order import Order
from dreambooth.resuming import Resuming
from dreambooth.sample_images import SampleImages
from dreambooth.work import Work


def run(order: Order, stop: StopSignal) -> None:
    """Train and publish. Raises RunFailed and ArtifactError; `exits` knows what they mean."""
    began = time.monotonic()
    recipe, inputs, world = order.recipe, order.inputs, order.world
    model = parts.load(inputs.base, world.device)
    if recipe.lora:
        lora.attach(model, recipe.lora, recipe.seed)
    intended = plan.make(order, model)
    plan.announce(intended, order, model)
    made = class_images.ensure(order, model, stop)
    is_same = identity.of(recipe, inputs, made, world)
    identity.require_equal(is_same, world)
    with Helper(order.message) as helper:
        if world.writes and memory.state_bytes(recipe, model) >= point_files.MIN_HELPED_BYTES:
            helper.start()
        sample_images = SampleImages(order, model, intended, helper, stop)
        with Resuming(order, is_same, helper, sample_images.finish) as resuming:
            work = Work(order, model, made, resuming, sample_images, intended, stop)
            state = work.train()
            sample_images.finish()
    if order.lease is not None:
        metrics = publish.stage_metrics(work.progress) | {"images": inputs.num_images, "steps": recipe.num_steps}
        metrics |= {"seconds": round(time.monotonic() - began, 1), "inexact": resuming.inexact}
        publish.publish(Checkpoints(order.store), order, model, state, metrics, stop)
    world.leave()
