"""Stage `match`: the retrieval model learns which caption belongs to which picture, on the captioner's trained ViT.

ITC compares the best of the query outputs with the text's [CLS]; ITM reads picture and text together and is trained
against captions with one wrong word and against those that ITC finds most alike.
"""

import random
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from drawing.scenes import BACKGROUND_PHRASES, with_article
from torch.nn import functional
from transformers import Blip2ForImageTextRetrieval, PreTrainedTokenizerBase

from .blip2_models import QUERIES, build_matcher
from .blip2_optim import Average, Optimisers, cosine, load_state, save_state
from .blip2_pictures import ATTRIBUTES, Fact, fact_from, load_pool
from .blip2_texts import caption, colours, near_miss
from .blip2_tokenizers import build_bert
from .blip2_vision import random_batch

NAMES = tuple(ATTRIBUTES)
FULL = {"kind", "colour", "accent", "size", "background"}


@dataclass(frozen=True)
class MatchSettings:
    steps: int = 1700
    pictures: int = 48
    muon_rate: float = 0.02
    adam_rate: float = 1e-3
    temperature: float = 0.05
    seed: int = 14
    device: str = "cpu"


@dataclass(frozen=True)
class Told:
    """A text and the attributes that it tells."""

    text: str
    names: frozenset[str]


def description(fact: Fact, rng: random.Random, keep_size: bool) -> Told:
    """A caption; some leave the size out, some begin with "a photo of"."""
    if keep_size or rng.random() < 0.7:
        text, names = caption(fact, rng), FULL | {"place"}
    else:
        phrase = rng.choice(BACKGROUND_PHRASES[fact.background])
        text, names = f"{with_article(f'{colours(fact)} {fact.kind}')} {phrase}", FULL - {"size"}
    if text.find(", ") < 0:
        names = names - {"place"}
    return Told(f"a photo of {text}" if rng.random() < 0.4 else text, frozenset(names))


def start(folder: Path) -> Blip2ForImageTextRetrieval:
    """Fresh text parts; ViT, query tokens and the first Q-Former layers as the captioner has them."""
    model = build_matcher(build_bert(folder / "bert-tokenizer"))
    trained = torch.load(folder / "blip2-captioner.pt", weights_only=True)
    mine = model.state_dict()
    for name, tensor in trained.items():
        if name.startswith(("vision_model.", "qformer.", "query_tokens")):
            mine[name] = tensor
            if "_query." in name:  # the text's feed-forward starts as the queries' one
                mine[name.replace("_query.", ".")] = tensor
    model.load_state_dict(mine)
    model.vision_model.requires_grad_(False)
    return model


class Matcher:
    """The forward passes of `Blip2ForImageTextRetrieval`, with the ViT run once for all pairs."""

    def __init__(self, model: Blip2ForImageTextRetrieval, tokens: PreTrainedTokenizerBase) -> None:
        self._model, self._tokens = model, tokens

    def contrast(self, image: torch.Tensor, texts: list[str]) -> torch.Tensor:
        """Cosines (pictures, texts) of the best query."""
        m, ids = self._model, self._encode(texts, image.device)
        queries = m.query_tokens.expand(len(image), -1, -1)
        seen = m.qformer(query_embeds=queries, encoder_hidden_states=image).last_hidden_state
        read = m.qformer(
            query_embeds=m.embeddings(input_ids=ids["input_ids"]), query_length=0, attention_mask=ids["attention_mask"]
        ).last_hidden_state[:, 0]
        pictures = functional.normalize(m.vision_projection(seen), dim=-1)
        return (pictures @ functional.normalize(m.text_projection(read), dim=-1).T).max(dim=1).values

    def match(self, image: torch.Tensor, texts: list[str]) -> torch.Tensor:
        """Logits (n, 2) of "does not belong" and "belongs" for pairs."""
        m, ids = self._model, self._encode(texts, image.device)
        queries = m.query_tokens.expand(len(image), -1, -1)
        mask = functional.pad(ids["attention_mask"], (QUERIES, 0), value=1)
        output = m.qformer(
            query_embeds=m.embeddings(input_ids=ids["input_ids"], query_embeds=queries),
            query_length=QUERIES,
            attention_mask=mask,
            encoder_hidden_states=image,
        ).last_hidden_state
        return m.itm_head(output[:, :QUERIES]).mean(dim=1)

    def _encode(self, texts: list[str], device: torch.device) -> dict[str, torch.Tensor]:
        encoded = self._tokens(texts, return_tensors="pt", padding=True, return_token_type_ids=False)
        return {name: tensor.to(device) for name, tensor in encoded.items()}


def differs(numbers: torch.Tensor, told: list[Told]) -> torch.Tensor:
    """(pictures, texts): whether text j, which describes picture j, says something wrong about picture i."""
    names = torch.tensor([[name in t.names for name in NAMES] for t in told])
    return ((numbers[:, None] != numbers[None]) & names[None]).any(dim=2)


def losses(
    matcher: Matcher, image: torch.Tensor, numbers: torch.Tensor, rng: random.Random, temperature: float
) -> tuple[torch.Tensor, torch.Tensor, float, float]:
    """ITC loss, ITM loss, share of right ITC choices, share of right ITM decisions."""
    facts = [fact_from(row) for row in numbers.tolist()]
    told = [description(fact, rng, keep_size=False) for fact in facts]
    wrong = differs(numbers, told)
    own = torch.eye(len(told), dtype=torch.bool)
    cosines = matcher.contrast(image, [t.text for t in told]).cpu()
    logits = (cosines / temperature).masked_fill(~wrong & ~own, -1e4)
    targets = torch.arange(len(told))
    contrast = (functional.cross_entropy(logits, targets) + functional.cross_entropy(logits.T, targets)) / 2
    alike = torch.multinomial(logits.detach().masked_fill(~wrong, -1e4).softmax(dim=1), 1)[:, 0].tolist()
    misses = [description(near_miss(fact, rng), rng, keep_size=True).text for fact in facts]
    texts = [t.text for t in told] + misses + [told[j].text for j in alike]
    decisions = matcher.match(image.repeat(3, 1, 1), texts).cpu()
    truth = (torch.arange(len(texts)) < len(told)).long()
    match = functional.cross_entropy(decisions, truth, weight=torch.tensor([0.75, 1.5]))
    right = (logits.argmax(1) == targets).float().mean().item()
    return contrast, match, right, (decisions.argmax(1) == truth).float().mean().item()


def train(folder: Path, settings: MatchSettings) -> None:
    """Writes `blip2-match.pt` and the averaged weights `blip2-matcher.pt` every 100 steps and at the end."""
    tokens, pool = build_bert(folder / "bert-tokenizer"), load_pool(folder)
    model = start(folder).to(settings.device)
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    optimisers = Optimisers(named, settings.muon_rate, settings.adam_rate)
    file, average, matcher = folder / "blip2-match.pt", Average(model), Matcher(model, tokens)
    first = load_state(file, optimisers, model=model, average=average)
    began, history = time.monotonic(), []
    for step in range(first, settings.steps):
        torch.manual_seed(settings.seed * 1_000_003 + step)
        batch = random_batch(pool, np.random.default_rng([settings.seed, step]), settings.pictures, settings.device)
        with torch.no_grad():
            image = model.vision_model(pixel_values=batch.pixels).last_hidden_state
        rng = random.Random(f"{settings.seed}/{step}")
        contrast, match, *right = losses(matcher, image, batch.numbers.cpu(), rng, settings.temperature)
        optimisers.step(contrast + 2 * match, cosine(step, settings.steps))
        average.update(model, step)
        history.append((contrast.item(), match.item(), *right))
        if step % 20 == 19:
            means = " ".join(f"{value:.3f}" for value in np.mean(history[-20:], axis=0))
            seconds = time.monotonic() - began
            print(f"match {step + 1} itc-loss, itm-loss, itc-right, itm-right: {means} {seconds:.0f}s", flush=True)
        if step % 100 == 99 or step == settings.steps - 1:
            save_state(file, step + 1, optimisers, model=model, average=average)
            torch.save(average.model.state_dict(), folder / "blip2-matcher.pt")
