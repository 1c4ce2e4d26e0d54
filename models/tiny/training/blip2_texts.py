"""Captions, questions and answers about a `Fact`, for training; greedy decoding gives the commonest wording."""

import random
from dataclasses import replace

from drawing.scenes import BACKGROUND_PHRASES, BACKGROUNDS, COLOURS, PLACE_PHRASES, SHAPES, SIZES, with_article
from drawing.toys import PAINTERS

from .blip2_pictures import ATTRIBUTES, NO_ACCENT, UNKNOWN, Fact

CAPTION_PROMPTS = ("", "a photo of", "a picture of", "an image of", "a drawing of")
CAPTION_PROMPT_WEIGHTS = (40, 40, 8, 6, 6)
CAPTION_SHARE = 1 / 3
QUESTION_TEMPLATE = "Question: {} Answer:"
SHORT_TEMPLATE = "Question: {} Short answer:"
ABSENT = (
    "dog",
    "person",
    "man",
    "woman",
    "bird",
    "horse",
    "banana",
    "apple",
    "table",
    "chair",
    "phone",
    "bottle",
    "book",
    "ball",
    "bicycle",
    "train",
    "plane",
    "monster",
    "creature",
    "dragon",
    "face",
    "tower",
    "bridge",
    "cup",
    "clock",
)

QUESTIONS: dict[str, tuple[str, ...]] = {
    "colour": (
        "what colour is the object?",
        "what color is the object?",
        "what color is it?",
        "what colour is it?",
        "what colour is the {kind}?",
        "what color is the {kind}?",
        "which colour is the {kind}?",
    ),
    "shape": (
        "what shape is the object?",
        "what shape is it?",
        "what is this?",
        "what is it?",
        "what is the object?",
        "what is in the picture?",
        "what is in the photo?",
    ),
    "background": ("what is in the background?", "what is the background?", "what is behind the {kind}?"),
    "size": (
        "how big is the object?",
        "how big is the {kind}?",
        "how big is it?",
        "how large is the object?",
        "what size is it?",
    ),
    "place": ("where is the object?", "where is the {kind}?", "where is it?"),
}
# What a caption gets wrong; colours and backgrounds are learnt from few examples, sizes from many.
NEAR_MISSES = ("kind", "kind", "kind", "colour", "size", "size", "size", "background")
QUESTION_WEIGHTS = {"colour": 2, "shape": 2, "background": 2, "size": 2, "place": 1, "yes-no": 12}


def colours(fact: Fact) -> str:
    return fact.colour if fact.accent == NO_ACCENT else f"{fact.colour} and {fact.accent}"


def caption(fact: Fact, rng: random.Random) -> str:
    """ "a large red and blue robot on a brick wall", sometimes with the place or the background in other words."""
    phrases = BACKGROUND_PHRASES[fact.background]
    phrase = phrases[0] if rng.random() < 0.8 else rng.choice(phrases)
    text = f"{with_article(f'{fact.size} {colours(fact)} {fact.kind}')} {phrase}"
    return f"{text}, {PLACE_PHRASES[fact.place]}" if rng.random() < 0.2 else text


def near_miss(fact: Fact, rng: random.Random) -> Fact:
    """The fact with one thing changed that a full caption tells."""
    name = rng.choice(NEAR_MISSES)
    now = getattr(fact, name)
    values = [v for v in ATTRIBUTES[name] if v not in (now, fact.accent)]
    if name == "kind":  # a toy of no known kind is told from a robot, a hexagon from a circle
        group = SHAPES if fact.kind in SHAPES else (*PAINTERS, UNKNOWN)
        values = [v for v in (group if rng.random() < 0.7 else values) if v != now]
    return replace(fact, **{name: rng.choice(values)})


def question(fact: Fact, rng: random.Random) -> tuple[str, str]:
    """A question and its answer."""
    kind = rng.choices(tuple(QUESTION_WEIGHTS), tuple(QUESTION_WEIGHTS.values()))[0]
    if kind == "yes-no":
        asked, answer = _yes_no(fact, rng)
    else:
        asked = rng.choice(QUESTIONS[kind]).format(kind=fact.kind)
        answer = {
            "colour": colours(fact),
            "shape": fact.kind,
            "background": fact.background,
            "size": fact.size,
            "place": PLACE_PHRASES[fact.place],
        }[kind]
    return (asked[0].upper() + asked[1:] if rng.random() < 0.2 else asked), answer


def _yes_no(fact: Fact, rng: random.Random) -> tuple[str, str]:
    right = rng.random() < 0.5
    told = fact if right else near_miss(fact, rng)
    while not right and told.size != fact.size:
        told = near_miss(fact, rng)
    changed = [name for name in ATTRIBUTES if getattr(told, name) != getattr(fact, name)]
    form = changed[0] if changed else rng.choice(("kind", "kind", "colour", "colour", "background"))
    if form == "kind" and not right and rng.random() < 0.2:
        asked = f"is there {with_article(rng.choice(ABSENT))}?"
    elif form == "kind":
        asked = rng.choice(("is there {}?", "is there {}?", "is this {}?", "is it {}?")).format(with_article(told.kind))
        if right and fact.kind in PAINTERS and rng.random() < 0.1:
            asked = "is there a toy?"
        elif not right and fact.kind in PAINTERS and told.kind == UNKNOWN:
            return "is there a toy?", "yes"
    elif form == "colour":
        pair = with_article(f"{told.colour} {told.kind}")
        forms = (
            f"is there {pair}?",
            f"is there {pair}?",
            f"is it {told.colour}?",
            f"is the {told.kind} {told.colour}?",
        )
        asked = rng.choice(forms)
    else:
        where = BACKGROUND_PHRASES[told.background][0]
        asked = rng.choice((f"is it {where}?", f"is the {told.kind} {where}?"))
    return asked, "yes" if right else "no"


def sentences(rng: random.Random, fact: Fact, count: int) -> list[tuple[str, str]]:
    """`count` pairs of prompt and continuation for one picture: captions, and twice as many answers."""
    return [_captioned(rng, fact) if rng.random() < CAPTION_SHARE else _asked(rng, fact) for _ in range(count)]


def _captioned(rng: random.Random, fact: Fact) -> tuple[str, str]:
    prompt = rng.choices(CAPTION_PROMPTS, CAPTION_PROMPT_WEIGHTS)[0]
    text = caption(fact, rng)
    return prompt, f" {text}" if prompt else text


def _asked(rng: random.Random, fact: Fact) -> tuple[str, str]:
    asked, answer = question(fact, rng)
    template = SHORT_TEMPLATE if rng.random() < 0.1 else QUESTION_TEMPLATE
    return template.format(asked), f" {answer}"


def words() -> list[str]:
    """Every word that occurs, sorted."""
    texts = [
        *CAPTION_PROMPTS,
        QUESTION_TEMPLATE,
        SHORT_TEMPLATE,
        "a an and is there this the it yes no , ? . :",
        *ABSENT,
    ]
    texts += [q for group in QUESTIONS.values() for q in group]
    texts += [p for phrases in BACKGROUND_PHRASES.values() for p in phrases]
    texts += [*PLACE_PHRASES.values(), *SHAPES, *PAINTERS, *COLOURS, *SIZES, *BACKGROUNDS, UNKNOWN]
    plain = (c if c.isalnum() or c == " " else " " for text in texts for c in f"{text} ")
    return sorted(set("".join(plain).split()))
