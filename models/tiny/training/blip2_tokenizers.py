"""Tokenizers of the BLIP-2 models: a vocabulary of their own, in the files of the published checkpoints."""

import json
from pathlib import Path

from tokenizers import ByteLevelBPETokenizer
from transformers import BertTokenizer, GPT2Tokenizer, PreTrainedTokenizerBase

from .blip2_texts import words

IMAGE_TOKEN = "<image>"
OPT_SPECIAL = {"bos_token": "</s>", "eos_token": "</s>", "unk_token": "</s>", "pad_token": "<pad>"}
BERT_SPECIAL = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}


def build_opt(folder: Path) -> PreTrainedTokenizerBase:
    """Byte-level BPE in which every word of the training texts is one token, with a space before it and without."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = words()
    lines = [form for word in vocabulary for form in (f" {word}", word, word.capitalize())]
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(
        lines * 2, vocab_size=4000, min_frequency=2, special_tokens=["<pad>", "</s>"], show_progress=False
    )
    bpe.save_model(str(folder))
    tokens = GPT2Tokenizer(
        vocab=str(folder / "vocab.json"), merges=str(folder / "merges.txt"), add_bos_token=True, **OPT_SPECIAL
    )
    return _with_image_token(tokens, folder)


def build_bert(folder: Path) -> PreTrainedTokenizerBase:
    """WordPiece: every word of the training texts whole, everything else letter by letter."""
    folder.mkdir(parents=True, exist_ok=True)
    letters = [chr(c) for c in range(33, 127) if not chr(c).isupper()]
    entries = [*BERT_SPECIAL.values(), *letters, *(f"##{c}" for c in letters if c.isalnum())]
    entries += [word.lower() for word in words()]
    (folder / "vocab.txt").write_text("\n".join(dict.fromkeys(entries)) + "\n")
    tokens = BertTokenizer(vocab=str(folder / "vocab.txt"), do_lower_case=True, **BERT_SPECIAL)
    return _with_image_token(tokens, folder)


def _with_image_token(tokens: PreTrainedTokenizerBase, folder: Path) -> PreTrainedTokenizerBase:
    tokens.add_tokens([IMAGE_TOKEN], special_tokens=True)
    tokens.model_max_length = 1_000_000
    tokens.save_pretrained(folder)
    special = {name: str(value) for name, value in tokens.special_tokens_map.items()}
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=2) + "\n")
    return tokens
