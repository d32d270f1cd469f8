"""Reading JSON a member at a time gives what reading it at once gives."""

import io
import json
import tracemalloc

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as some

import ase_crystalformer.data.json_stream as streams
from ase_crystalformer.data.json_stream import JsonStream

VALUES = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats(allow_nan=False) | some.text(),
    lambda inner: some.lists(inner, max_size=4) | some.dictionaries(some.text(), inner, max_size=4),
    max_leaves=8,
)


def read(text, chunk):
    """The outermost members, each read by itself."""
    stream = JsonStream(io.StringIO(text))
    before, streams.CHUNK = streams.CHUNK, chunk
    try:
        pairs = [(key, stream.value()) for key in stream.members()]
        assert stream.peek() == ""
    finally:
        streams.CHUNK = before
    return pairs


@settings(max_examples=100)
@example([0.5], 1, None)
@example([1e-20, -2.5e300, -0.25], 1, None)
@example([[0.5, -1e-7], {"a": 1.5e300}, True, None, "\U0001f600"], 1, None)
@given(some.lists(VALUES), some.integers(1, 50), some.sampled_from([None, 1]))
def test_an_array(stored, chunk, indent):
    assert read(json.dumps(stored, indent=indent), chunk) == list(enumerate(stored))


@settings(max_examples=100)
@given(some.dictionaries(some.text(), VALUES), some.integers(1, 50))
def test_an_object(stored, chunk):
    assert dict(read(json.dumps(stored), chunk)) == stored


def test_members_of_members_and_what_is_skipped():
    text = '{"skipped": [1, {"a": 2}], "also": 3, "rows": [[1, 2], [3, NaN]], "last": "x"}'
    stream, rows = JsonStream(io.StringIO(text)), []
    for key in stream.members():
        if key == "rows":
            rows = [stream.value() for _ in stream.members()]
        else:
            stream.skip()
    assert rows[0] == [1, 2]
    assert rows[1][1] != rows[1][1]


@pytest.mark.parametrize(
    "text", ["", "7", "[1, 2", '{"a": ', '{"a" 1}', "[1 2]", "[1, }", "{1: 2}", '["abc']
)
def test_broken_text_is_refused(text):
    with pytest.raises(ValueError, match="Not JSON"):
        read(text, 4)


NUMBERS = ["0.5", "1e5", "1E-5", "-2.5e+10", "-0", "NaN", "-Infinity", "12345678901234567890"]


@pytest.mark.parametrize("chunk", range(1, 12))
def test_numbers_are_whole_wherever_the_text_is_cut(chunk):
    text = f"[{', '.join(NUMBERS)}]"
    assert repr([value for _, value in read(text, chunk)]) == repr(json.loads(text))
    for number in NUMBERS:
        stream = JsonStream(io.StringIO(number))
        assert repr(stream.value()) == repr(json.loads(number))


@pytest.mark.parametrize(
    "text", ["[0..5]", "[1e]", "[1e+]", "[2.5e", "[-]", "[1......]", "[1e5e5]"]
)
@pytest.mark.parametrize("chunk", [1, 4, 100])
def test_what_only_begins_as_a_number_is_refused(text, chunk):
    with pytest.raises(ValueError, match="Not JSON"):
        read(text, chunk)


@pytest.mark.parametrize("bad", ["?", "}", '{"a" 1}', '"\t"', "[1 2]", "nul", "1.2.3"])
def test_a_bad_byte_is_told_where_it_stands_and_the_rest_is_not_read(bad, monkeypatch):
    monkeypatch.setattr(streams, "CHUNK", 100)
    start = '{"a": 1}, '
    text = "[" + start * 1000 + bad + ", " + start * 10_000 + "1]"
    file = io.StringIO(text)
    stream = JsonStream(file)
    with pytest.raises(ValueError, match="Not JSON") as told:
        [stream.value() for _ in stream.members()]
    at = int(str(told.value).rpartition("(")[2].rstrip(").").replace(",", ""))
    assert 0 <= at - len("[" + start * 1000) <= 5
    assert file.tell() < 11_000


def test_memory_does_not_grow_with_the_file():
    class Endless(io.TextIOBase):
        """Five thousand rows of 10 kB, made as they are read."""

        left = 5_000

        def read(self, size=-1):
            rows = min(self.left, size // 10_000 + 1)
            head = "[" if self.left == 5_000 else ","
            self.left -= rows
            text = ",".join(['"' + "x" * 10_000 + '"'] * rows)
            return head + text + ("]" if not self.left else "") if rows else ""

    stream = JsonStream(Endless())
    tracemalloc.start()
    try:
        lengths = sum(len(stream.value()) for _ in stream.members())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert lengths == 5_000 * 10_000
    assert peak < 10_000_000
