"""The CLIP tokenizer with a vocabulary of its own: one token for every word of the captions, bytes for all else."""

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path

from drawing import scenes, toys
from transformers import CLIPTokenizer

TOKENS = 24  # the longest caption takes 20; 77 would triple the cost of every cross-attention
# words a person may well type, and "sks", the rare word for a new subject; the captions hold none of these
OTHER_WORDS = (
    "sks zwx person man woman dog bird creature monster alien character thing picture painting drawing image sketch "
    "poster icon render close up high quality very nice cute beautiful happy big little tiny huge green-eyed with "
    "without near behind inside over by to from and or is are my his her its their this that these two three four "
    "beach forest city street room space river mountain snow rain sun moon sky dark light bright day morning evening "
    "style cartoon flat simple detailed blurry bad ugly low worst"
)


def words() -> list[str]:
    """Every word of every possible caption, and the others, sorted."""
    texts = [OTHER_WORDS, "a an the photo of in on at under front background brick wall bricks wooden table wood grass"]
    texts += [p for phrases in scenes.BACKGROUND_PHRASES.values() for p in phrases]
    texts += [*scenes.PLACE_PHRASES.values(), *scenes.SHAPES, *scenes.COLOURS, *scenes.SIZES, *toys.PAINTERS, "toy"]
    return sorted({word for text in texts for word in text.replace("-", " ").split()})


def byte_symbols() -> list[str]:
    """The 256 printable stand-ins of byte-level BPE, in the order of GPT-2's table."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in printable]
    return [chr(b) for b in printable] + [chr(256 + i) for i in range(len(rest))]


def merges(vocabulary_words: list[str]) -> list[tuple[str, str]]:
    """Byte pair merges, the most frequent first, until every word is a single symbol."""
    split = [[*word[:-1], f"{word[-1]}</w>"] for word in vocabulary_words]
    found = []
    while any(len(symbols) > 1 for symbols in split):
        pairs = Counter(pair for symbols in split for pair in pairwise(symbols))
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        found.append(best)
        split = [_joined(symbols, best) for symbols in split]
    return found


def _joined(symbols: list[str], pair: tuple[str, str]) -> list[str]:
    joined: list[str] = []
    position = 0
    while position < len(symbols):
        if tuple(symbols[position : position + 2]) == pair:
            joined.append("".join(pair))
            position += 2
        else:
            joined.append(symbols[position])
            position += 1
    return joined


def build(folder: Path) -> CLIPTokenizer:
    """Writes vocab.json, merges.txt and the configuration into `folder` and loads them."""
    folder.mkdir(parents=True, exist_ok=True)
    pairs = merges(words())
    symbols = byte_symbols()
    tokens = [*symbols, *(f"{s}</w>" for s in symbols), *("".join(pair) for pair in pairs)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: number for number, token in enumerate(dict.fromkeys(tokens))}
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in pairs)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    special = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>"}
    special |= {"unk_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
    configuration = {"tokenizer_class": "CLIPTokenizer", "model_max_length": TOKENS, "do_lower_case": True, **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(configuration, indent=2) + "\n")
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=2) + "\n")
    return CLIPTokenizer.from_pretrained(folder)
