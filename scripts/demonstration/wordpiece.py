"""The tokenizer of uncased BERT: text to vocabulary numbers, by the rules of google-research/bert `tokenization.py`."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["WordPiece"]

_WORD_MAX: Final = 100
# CJK ideographs stand alone: tokenization.py, `_is_chinese_char`.
_IDEOGRAPHS: Final = (
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF),
    (0x2F800, 0x2FA1F),
)


class WordPiece:
    """Lower-cases, strips accents, splits at blanks and punctuation, then takes the longest known piece repeatedly."""

    def __init__(self, vocabulary: dict[str, int]) -> None:
        self._vocabulary = vocabulary
        self.start: Final = vocabulary["[CLS]"]
        self.end: Final = vocabulary["[SEP]"]
        self._unknown: Final = vocabulary["[UNK]"]

    @classmethod
    def load(cls, vocabulary: Path) -> Self:
        """Read ``vocab.txt``: the piece on line n has number n, from 0."""
        lines = vocabulary.read_text(encoding="utf-8").split("\n")
        return cls({piece: number for number, piece in enumerate(lines) if piece})

    def encode(self, text: str, limit: int) -> list[int]:
        """The numbers of ``text``'s pieces between the start and end marks, ``limit`` at most with both."""
        numbers = [number for word in _words(text) for number in self._pieces(word)]
        return [self.start, *numbers[: limit - 2], self.end]

    def _pieces(self, word: str) -> list[int]:
        if len(word) > _WORD_MAX:
            return [self._unknown]
        numbers: list[int] = []
        begin = 0
        while begin < len(word):
            prefix = "##" if begin else ""
            for end in range(len(word), begin, -1):
                number = self._vocabulary.get(prefix + word[begin:end])
                if number is not None:
                    numbers.append(number)
                    begin = end
                    break
            else:
                return [self._unknown]
        return numbers


def _words(text: str) -> Iterator[str]:
    cleaned = "".join(_clean(char) for char in text)
    plain = "".join(char for char in unicodedata.normalize("NFD", cleaned) if unicodedata.category(char) != "Mn")
    for word in plain.lower().split():
        yield from _split_punctuation(word)


def _clean(char: str) -> str:
    if char in "\t\n\r" or unicodedata.category(char) == "Zs":
        return " "
    if char in "\0\ufffd" or unicodedata.category(char) in {"Cc", "Cf", "Co"}:
        return ""
    if any(low <= ord(char) <= high for low, high in _IDEOGRAPHS):
        return f" {char} "
    return char


def _split_punctuation(word: str) -> Iterator[str]:
    begin = 0
    for index, char in enumerate(word):
        if _is_punctuation(char):
            if begin < index:
                yield word[begin:index]
            yield char
            begin = index + 1
    if begin < len(word):
        yield word[begin:]


def _is_punctuation(char: str) -> bool:
    # All of ASCII that is neither letter, digit nor blank counts, also what Unicode calls a symbol.
    return (char.isascii() and not char.isalnum() and char.isprintable()) or unicodedata.category(char).startswith("P")
