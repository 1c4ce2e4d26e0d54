"""The split retrieval path equals the class it is split from."""

import torch
from captioner.retrieval import RetrievalModel

from tests.captioner.conftest import scene

TEXTS = ["a large red circle on a gray background", "a small blue square"]


def test_scores_equal_the_published_class(retrieval_model: RetrievalModel) -> None:
    pixels = [retrieval_model.prepare(scene(colour)) for colour in ("red", "blue")]
    itc, itm = retrieval_model.match(pixels, TEXTS, with_itm=True)
    model = retrieval_model._model
    encoded = retrieval_model._processor(images=None, text=TEXTS, padding=True, return_tensors="pt")
    prefix = model.config.num_query_tokens if model.config.image_token_index is not None else 0
    ids = torch.nn.functional.pad(encoded["input_ids"], (prefix, 0))
    mask = torch.nn.functional.pad(encoded["attention_mask"], (prefix, 0), value=1)
    with torch.inference_mode():
        want_itc = model(torch.stack(pixels), ids, mask).logits_per_image
        want_itm = model(torch.stack(pixels), ids, mask, use_image_text_matching_head=True).logits_per_image
    assert torch.allclose(itc, want_itc, atol=1e-5)
    assert itm is not None
    assert torch.allclose(itm.diagonal(), want_itm.softmax(-1)[:, 1], atol=1e-5)


def test_embeddings_are_unit_vectors_that_give_the_similarity(retrieval_model: RetrievalModel) -> None:
    pixels = [retrieval_model.prepare(scene("red"))]
    images, texts = retrieval_model.embed_images(pixels), retrieval_model.embed_texts(TEXTS)
    assert torch.allclose(images.norm(dim=-1), torch.ones(images.shape[:2]), atol=1e-5)
    itc, _ = retrieval_model.match(pixels, TEXTS, with_itm=False)
    assert torch.allclose(torch.einsum("iqd,td->itq", images, texts).amax(-1), itc, atol=1e-5)
