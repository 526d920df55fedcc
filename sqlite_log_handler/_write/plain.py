"""
Plain values: what SQLite and JSON take, made of anything that a program logs.

A text is an exact `str` that encodes to UTF-8 and has no NUL in it. An attribute is what JSON knows. A value that JSON
does not know becomes the text that shows it, and one that cannot be shown becomes a marker.

A value costs what is kept of it, in time and in memory. Whoever asks says how many bytes there is room for, and nothing
here looks at more of a text, a list or a dict than fits. What the program's own code makes, such as the result of a
`__str__`, is as large as that code makes it.
"""

import math
import reprlib
import sys
from collections.abc import Callable, Collection, Sequence
from itertools import islice
from typing import Any

TRUNCATED = 1
MALFORMED = 2

# Longer names are not names. PATH_MAX is 4096, but nobody has a source file there.
NAME_LENGTH = 1_000

# SQLite reads 1,000 levels of JSON, parsers of protobuf 100 (https://sqlite.org/json1.html). Each level takes two of
# Python's frames here, of the 1,000 that a thread has.
_DEEPEST = 100

# Python writes no integer of more than 4,300 digits unless it is told to, because the time grows with their square.
_INTEGER_BITS = 14_000

# The least room that a value is given: enough for the marker that says what was cut.
_LEAST = 64
# `"<cut: 1000000000 items>", `, kept for each list and dict until it is complete.
_MARKER = 32

# `: ` and `, `
_SEPARATORS = 4
# `"": 1, `
_SHORTEST = 7

_NUMBERS = frozenset((float, bool, type(None)))

# Text -----------------------------------------------------------------------------------------------------------------


def exact(value: object) -> str:
    """
    Return `str(value)` as an exact str: an instance of a subclass would take the program's code to the listener.
    """
    text = str(value)
    return text if type(text) is str else str.__str__(text)


def shown(render: Callable[[Any], str], value: object) -> str:
    """
    Return what `render` makes of a value, or a marker if it raises.
    """
    try:
        return exact(render(value))
    except Exception as error:  # noqa: BLE001 - hostile __str__ and __repr__
        return _not_shown(value, error)


def _not_shown(value: object, error: Exception) -> str:
    return f"<{type(value).__name__[:NAME_LENGTH]} that cannot be shown: {type(error).__name__[:NAME_LENGTH]}>"


def clean(value: object) -> str:
    """
    Return a name as SQLite can keep it, at a length that names have.
    """
    return escape(shown(str, value)[:NAME_LENGTH])


def escape(text: str) -> str:
    r"""
    Return `text` as SQLite can keep it: NUL and lone surrogates as \x00 and \udc80.
    """
    if "\0" in text:
        # SQLite stores it, but length(), LIKE and the shell stop there, so it hides what follows.
        text = text.replace("\0", r"\x00")
    return text if is_utf8(text) else text.encode(errors="backslashreplace").decode()


def is_utf8(text: str) -> bool:
    """
    Tell whether `text` has no lone surrogates.
    """
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def utf8_length(text: str) -> int:
    """
    Return the bytes of `text` in UTF-8.
    """
    return len(text) if text.isascii() else len(text.encode())


class _Short(reprlib.Repr):
    """
    Show the arguments of a message that cannot be formatted, and no more of each than a name may have.
    """

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = NAME_LENGTH
        self.maxtuple = self.maxlist = self.maxdict = 100

    repr_bytes = repr_bytearray = reprlib.Repr.repr_str  # which slices, and shows what is left


short_repr = _Short().repr


def shares(sizes: Sequence[int], total: int) -> list[int]:
    """
    Share `total` among texts: the short ones get what they need, the long ones the rest in equal parts.
    """
    limits = [0] * len(sizes)
    for rank, index in enumerate(sorted(range(len(sizes)), key=sizes.__getitem__)):
        limits[index] = total // (len(sizes) - rank)
        total -= min(sizes[index], limits[index])
    return limits


def cut(text: str, limit: int, length: int) -> str:
    """
    Cut to `limit` bytes of UTF-8, the marker included; `length` is the whole text's, in characters.
    """
    marker = f" <cut: {length} characters>"
    return text.encode()[: max(0, limit - len(marker))].decode(errors="ignore") + marker


# Attributes -----------------------------------------------------------------------------------------------------------

try:
    # What `json.dumps(ensure_ascii=False, allow_nan=False)` writes, by an encoder that is kept: `JSONEncoder.encode`
    # makes one for each call, which takes twice the time of the encoding, and `json` itself is slow to import.
    from _json import encode_basestring, make_encoder

    # markers, default, encoder, indent, separators, sort_keys, skipkeys, allow_nan
    _encode = make_encoder(None, str, encode_basestring, None, ": ", ", ", *[False] * 3)
except ImportError:  # another Python than CPython
    from json.encoder import JSONEncoder, encode_basestring

    _plain_encoder = JSONEncoder(ensure_ascii=False, allow_nan=False, check_circular=False)
    _encode = lambda value, _: _plain_encoder.iterencode(value)  # type: ignore[assignment]  # noqa: E731


def encode_attributes(attributes: dict[str, Any], room: int) -> tuple[str, int]:  # noqa: C901 - a quick way in front
    """
    Write attributes as a JSON object.

    Args:
        attributes: By name; they may be anything.
        room: Bytes of UTF-8 that it may take.

    Returns:
        The text, and MALFORMED if JSON could not hold a value, and TRUNCATED if there was no room for it.
    """
    # Nearly all are a few short texts and numbers, which are JSON as they are.
    left = room
    for name, value in attributes.items():
        left -= len(name)
        kind = type(value)
        if kind is str:
            left -= len(value)
        elif kind is int:
            if not -(2**63) <= value < 2**63:
                break
        elif kind not in _NUMBERS:
            break
    else:
        if left >= 0:
            try:
                text = "".join(_encode(attributes, 0))
            except ValueError:  # NaN
                pass
            else:
                if len(text) <= room and "\\u0000" not in text and (text.isascii() or _fits(text, room)):
                    return text, 0
    names = list(islice(attributes, room // _SHORTEST + 1))
    plain, marks = _copied(attributes, names, room, fairly=False)
    if marks & TRUNCATED:
        # First those whose length is known, the short before the long: what they leave goes to the others.
        fair, marks = _copied(attributes, sorted(names, key=lambda name: _length(attributes[name])), room, fairly=True)
        order = {key: None for name in names if (key := clean(name)) in fair}
        plain = {key: fair[key] for key in order | fair}
    return "".join(_encode(plain, 0)), marks


def _fits(text: str, room: int) -> bool:
    try:
        return len(text.encode()) <= room
    except UnicodeEncodeError:  # a lone surrogate
        return False


def _length(value: object) -> int:
    if isinstance(value, str | bytes | bytearray):
        return len(value)
    return 0 if type(value) is int or type(value) in _NUMBERS else sys.maxsize


def _copied(attributes: dict[str, Any], names: Sequence[str], room: int, *, fairly: bool) -> tuple[dict[str, Any], int]:
    """
    Copy the attributes called `names`, in that order; each may take what is left, or its fair share of that.
    """
    copy = _Copy()
    plain: dict[str, Any] = {}
    left = room - _MARKER
    for rank, name in enumerate(names):
        if left < _LEAST:
            break
        key = copy.name(name)
        needs = _json_length(key) + _SEPARATORS
        share = max(left // (len(names) - rank), needs + _LEAST) if fairly else left
        if needs + _LEAST <= share <= left:
            copy.room = share - needs
            plain[key] = copy.of(attributes[name])
            left -= share - copy.room
    if len(plain) < len(attributes):
        copy.marks |= TRUNCATED
        plain["cut"] = f"{len(attributes) - len(plain)} attributes"
    return plain, copy.marks


def _json_length(text: str) -> int:
    return utf8_length(encode_basestring(text))


class _Copy:
    """
    Copies values, as JSON can hold them, into the `room` that they take when they are written.

    A list or a dict keeps _MARKER bytes of it back until it is complete, and gives no value less than _LEAST.
    """

    __slots__ = ("_around", "marks", "room")

    def __init__(self) -> None:
        self.room = 0
        self.marks = 0
        self._around: set[int] = set()  # the lists and dicts in which the value stands, by their id

    def of(self, value: object) -> object:  # noqa: PLR0911 - one line for each kind
        """
        Copy a value, or make a marker of it if its code raises.
        """
        room = self.room
        try:
            kind = type(value)
            if kind is str:
                return self._text(value)  # type: ignore[arg-type]
            if value is None or kind is bool:
                self.room -= 5
                return value
            if isinstance(value, int):
                return self._integer(value)
            if isinstance(value, float):
                return self._float(value)
            if isinstance(value, str):
                return self._text(exact(value))
            if isinstance(value, dict | list | tuple | set | frozenset):
                return self._within(value)
            if isinstance(value, bytes | bytearray):
                text = bytes(value[: max(room, 0)]).decode(errors="backslashreplace")
                return self._text(text, len(value) - room)
            return self._text(exact(repr(value) if isinstance(value, BaseException) else str(value)))
        except Exception as error:  # noqa: BLE001 - the program's code, and the end of the stack
            self.room = room
            self.marks |= MALFORMED
            return self._text(_not_shown(value, error))

    def _text(self, text: str, hidden: int = 0) -> str:
        """
        Copy as much of a text as there is room for; `hidden` characters more were not even looked at.
        """
        kept = escape(text[: self.room])
        size = _json_length(kept)
        length = len(text) + max(hidden, 0)
        if length > self.room or size > self.room:
            self.marks |= TRUNCATED
            marker = f" <cut: {length} characters>"
            while size > self.room - len(marker):
                kept = kept[: len(kept) * (self.room - len(marker)) // size]
                size = _json_length(kept)
            kept += marker
            size += len(marker)
        self.room -= size
        return kept

    def _integer(self, value: int) -> int | str:
        if value.bit_length() > _INTEGER_BITS:
            raise OverflowError
        value = int.__int__(value)
        digits = len(str(value))
        if digits > self.room:
            return self._text(str(value))
        self.room -= digits
        return value

    def _float(self, value: float) -> float | str:
        value = float.__float__(value)
        if not math.isfinite(value):
            self.marks |= MALFORMED
            return self._text(str(value))
        self.room -= len(str(value))
        return value

    def _within(self, value: Any) -> object:
        """
        Copy a list or a dict, unless it stands in itself, or too deep.
        """
        if id(value) in self._around or len(self._around) == _DEEPEST:
            raise RecursionError
        self._around.add(id(value))
        self.room -= _MARKER
        try:
            return self._dict(value) if isinstance(value, dict) else self._list(value)
        finally:
            self._around.discard(id(value))

    def _list(self, value: Collection[Any]) -> list[object]:
        copied: list[object] = []
        # A copy, because another thread may add to it meanwhile. No item takes less than a byte.
        for item in list(islice(value, self.room)):
            if self.room < _LEAST:
                self.marks |= TRUNCATED
                copied.append(f"<cut: {len(value) - len(copied)} items>")
                break
            copied.append(self.of(item))
            self.room -= 2
        else:
            self.room += _MARKER - 2
        return copied

    def _dict(self, value: dict[Any, Any]) -> dict[str, object]:
        copied: dict[str, object] = {}
        for key, item in list(islice(value.items(), self.room)):
            name = self.name(key)
            needs = _json_length(name) + _SEPARATORS
            if self.room < needs + _LEAST:
                self.marks |= TRUNCATED
                copied["cut"] = f"{len(value) - len(copied)} items"
                break
            self.room -= needs
            copied[name] = self.of(item)
        else:
            self.room += _MARKER - 2
        return copied

    def name(self, key: object) -> str:
        """
        Return the name of a member, as JSON writes the keys of a dict.
        """
        if key is None or type(key) is bool:
            return {True: "true", False: "false"}.get(key, "null")  # type: ignore[arg-type]
        if isinstance(key, int) and key.bit_length() > _INTEGER_BITS:
            raise OverflowError
        if isinstance(key, str) and len(key) > NAME_LENGTH:
            self.marks |= TRUNCATED
        if not isinstance(key, str | int) and not (isinstance(key, float) and math.isfinite(key)):
            self.marks |= MALFORMED
        return clean(key)
