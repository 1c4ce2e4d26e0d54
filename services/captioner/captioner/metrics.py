"""Prometheus metrics of batching: are batches full, and how long do images wait."""

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from captioner.batching import BatchObserver


def batch_metrics(registry: CollectorRegistry) -> BatchObserver:
    """An observer that counts into the registry."""
    size = Histogram(
        "darkroom_caption_batch_images",
        "Images in one forward pass",
        buckets=(1, 2, 4, 8, 16, 32, 64, 128),
        registry=registry,
    )
    wait = Histogram("darkroom_caption_queue_seconds", "Wait of an image for its batch", registry=registry)
    waiting = Gauge("darkroom_caption_images_admitted", "Images between admission and answer", registry=registry)
    dropped = Counter(
        "darkroom_caption_images_dropped", "Images whose caller went away before their batch", registry=registry
    )

    def on_batch(num_images: int, waits: Sequence[float]) -> None:
        size.observe(num_images)
        for seconds in waits:
            wait.observe(seconds)

    return BatchObserver(batch=on_batch, waiting=waiting.set, dropped=dropped.inc)
