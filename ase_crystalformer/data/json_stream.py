"""Large JSON, read a member at a time.

What is decoded is decoded by Python's own ``json``, which knows the NaN that some published files
hold; only the text around the members is walked through here.
"""

from collections.abc import Iterator
from io import TextIOBase
from json import JSONDecodeError, JSONDecoder
from typing import Any

#: Characters read at a time.
CHUNK = 1 << 20

_BLANK = " \t\n\r"

#: Characters that may go on a number, and how many may be left over where one is cut: ``e-``.
_NUMBER, _LEFT_OVER = "+-.eE0123456789", 2

#: Longest of the words that stand for values.
_WORD = len("-Infinity")


class JsonStream:
    """JSON that need not fit into memory.

    ``members`` stands before each member in turn; the caller takes its ``value``, or walks through
    its ``members``, before asking for the next.

    Args:
        file: Opened as text.
    """

    def __init__(self, file: TextIOBase) -> None:
        self._file = file
        self._decoder = JSONDecoder()
        self._text = ""
        self._at = 0
        self._dropped = 0
        self._ended = False

    def peek(self) -> str:
        """Show the next character that is not blank; nothing at the end."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in _BLANK:
                self._at += 1
            if self._at < len(self._text) or not self._more():
                return self._text[self._at : self._at + 1]

    def value(self) -> Any:
        """Decode the value that comes next.

        Raises:
            ValueError: It is no JSON, or the file ends within it; with the number of the character.
        """
        self.peek()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
            except JSONDecodeError as error:
                if self._ended or not self._is_cut(error):
                    at = self._dropped + error.pos
                    raise ValueError(f"Not JSON, or cut off: {error.msg} ({at:,}).") from error
            else:
                if self._ended or self._is_whole(end):
                    self._at = end
                    return value
            self._more()

    def _is_cut(self, error: JSONDecodeError) -> bool:
        """Whether an error may be that the text read so far ends within the value."""
        if error.msg.startswith("Unterminated string"):
            return True
        return len(self._text[error.pos :].rstrip(_BLANK)) < _WORD

    def _is_whole(self, end: int) -> bool:
        """Whether the value that ends there is whole: a number may go on."""
        rest = self._text[end : end + _LEFT_OVER + 1]
        return len(rest) > _LEFT_OVER or bool(rest.lstrip(_NUMBER))

    def members(self) -> Iterator[str | int]:
        """Stand before each member of the object or array that comes next; give key or number.

        Raises:
            ValueError: There is neither, or it is broken.
        """
        opening = self._take("{[")
        closing = "}" if opening == "{" else "]"
        number = 0
        while self.peek() != closing:
            if number:
                self._take(",")
            key: str | int = number
            if opening == "{":
                self._expect('"')
                key = self.value()
                self._take(":")
            yield key
            number += 1
        self._take(closing)

    def skip(self) -> None:
        """Pass over the value that comes next, a member at a time."""
        if self.peek() and self.peek() in "{[":
            for _ in self.members():
                self.value()
        else:
            self.value()

    def _take(self, allowed: str) -> str:
        found = self._expect(allowed)
        self._at += 1
        return found

    def _expect(self, allowed: str) -> str:
        found = self.peek()
        if not found or found not in allowed:
            at = self._dropped + self._at
            raise ValueError(
                f"Not JSON: {found or 'the end'!r} stands where {allowed} should ({at:,})."
            )
        return found

    def _more(self) -> bool:
        """Read on; drop what is behind. Reads grow with the value, so that none is slow."""
        if self._ended:
            return False
        rest = self._text[self._at :]
        chunk = self._file.read(max(CHUNK, len(rest)))
        self._dropped += self._at
        self._text, self._at, self._ended = rest + chunk, 0, not chunk
        return bool(chunk)
