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
            ValueError: It is no JSON, or the file ends within it.
        """
        self.peek()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
            except JSONDecodeError as error:
                if self._more():
                    continue
                raise ValueError(f"Not JSON, or cut off: {error}.") from error
            if end < len(self._text) or not self._more():  # a number may go on
                self._at = end
                return value

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
            raise ValueError(f"Not JSON: {found or 'the end'!r} stands where {allowed} should.")
        return found

    def _more(self) -> bool:
        """Read on; drop what is behind. Reads grow with the value, so that none is slow."""
        if self._ended:
            return False
        rest = self._text[self._at :]
        chunk = self._file.read(max(CHUNK, len(rest)))
        self._text, self._at, self._ended = rest + chunk, 0, not chunk
        return bool(chunk)
