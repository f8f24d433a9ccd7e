"""The tokenizer of a Hugging Face directory, as one ``tokenizer.json``.

Older directories hold only a vocabulary: ``vocab.txt`` (WordPiece: BERT, DistilBERT) or
``vocab.json`` and ``merges.txt`` (byte-level BPE: GPT-2, RoBERTa). The tokenizer is built from them
once, and its JSON is what the model carries from then on.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from apparate_jax.errors import ModelError

TOKENIZER = "tokenizer.json"
CONFIG = "tokenizer_config.json"
WORDPIECE = ("vocab.txt",)
BYTE_BPE = ("vocab.json", "merges.txt")


def read_tokenizer(root: Path) -> dict[str, bytes]:
    """The tokenizer of a directory.

    Args:
        root: The directory.

    Returns:
        ``{"tokenizer.json": content}``, empty if the directory has no tokenizer.

    Raises:
        ModelError: Vocabulary files that are damaged, or the tokenizers library is not there to
            read them.
    """
    if (root / TOKENIZER).is_file():
        return {TOKENIZER: (root / TOKENIZER).read_bytes()}
    for files, build in ((WORDPIECE, _wordpiece), (BYTE_BPE, _byte_bpe)):
        if all((root / name).is_file() for name in files):
            return {TOKENIZER: _built(root, files, build).encode()}
    return {}


def _built(
    root: Path, files: tuple[str, ...], build: Callable[[Path, Mapping[str, Any]], Any]
) -> str:
    try:
        settings = json.loads((root / CONFIG).read_text()) if (root / CONFIG).is_file() else {}
        return str(build(root, settings).to_str())
    except ImportError as error:
        raise ModelError(
            f"{root} has {' and '.join(files)} but no {TOKENIZER}: to build one, install "
            "apparate-jax[data]"
        ) from error
    except Exception as error:  # the tokenizers library raises nothing more special
        raise ModelError(
            f"{' and '.join(files)} in {root} make no tokenizer: {error}. Copy or download them "
            f"again, or put a {TOKENIZER} beside them"
        ) from error


def _word(settings: Mapping[str, Any], name: str, default: str) -> str:
    """A special token, which is configured as a string or an object around it."""
    value = settings.get(name) or default
    return str(value["content"] if isinstance(value, dict) else value)


def _wordpiece(root: Path, settings: Mapping[str, Any]) -> Any:
    from tokenizers import BertWordPieceTokenizer
    from tokenizers.models import WordPiece

    return BertWordPieceTokenizer(
        WordPiece.read_file(str(root / WORDPIECE[0])),
        unk_token=_word(settings, "unk_token", "[UNK]"),
        sep_token=_word(settings, "sep_token", "[SEP]"),
        cls_token=_word(settings, "cls_token", "[CLS]"),
        pad_token=_word(settings, "pad_token", "[PAD]"),
        mask_token=_word(settings, "mask_token", "[MASK]"),
        handle_chinese_chars=settings.get("tokenize_chinese_chars", True),
        strip_accents=settings.get("strip_accents"),
        lowercase=settings.get("do_lower_case", True),
    )


def _byte_bpe(root: Path, settings: Mapping[str, Any]) -> Any:
    """GPT-2's tokenizer; where the vocabulary has RoBERTa's first and last token, RoBERTa's."""
    from tokenizers import ByteLevelBPETokenizer
    from tokenizers.models import BPE
    from tokenizers.processors import RobertaProcessing

    vocab, merges = BPE.read_file(*(str(root / name) for name in BYTE_BPE))
    space = bool(settings.get("add_prefix_space", False))
    tokenizer = ByteLevelBPETokenizer(vocab, merges, add_prefix_space=space)
    first, last = _word(settings, "cls_token", "<s>"), _word(settings, "sep_token", "</s>")
    special = (first, last, "<pad>", "<unk>", "<mask>", "<|endoftext|>")
    tokenizer.add_special_tokens([token for token in special if token in vocab])
    if first in vocab and last in vocab:
        tokenizer.post_processor = RobertaProcessing(
            (last, vocab[last]), (first, vocab[first]), add_prefix_space=space
        )
    return tokenizer
