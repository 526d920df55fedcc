"""
Plain values, which SQLite and JSON take, made of anything that a program logs.

A text becomes an exact `str` that encodes to UTF-8 and has no NUL in it, and an attribute becomes JSON. Where JSON has
no such value, its `str` takes its place, and a marker if that raises.

A value costs no more time and memory than the part of it that is kept. The caller says for how many bytes there is
room, and nothing here looks at more of a text, a list or a dict than fits. Only the `str()` of other objects may be
longer, because the program or Python makes all of it.
"""

from __future__ import annotations

import logging
import sys
from _json import encode_basestring
from collections import deque
from collections.abc import Sequence
from itertools import islice
from types import MappingProxyType

from sqlite_log_handler._logfile.typed import Any

TRUNCATED = 1
MALFORMED = 2

# Nobody uses longer names. PATH_MAX is 4096, but no source file has such a path.
NAME_LENGTH = 1_000

# SQLite reads 1,000 levels of JSON, parsers of protobuf 100 (https://sqlite.org/json1.html). Each level takes two of
# Python's frames here, of the 1,000 that a thread has.
_DEEPEST = 100

# By default Python writes no integer of more than 4,300 digits, because the time grows with their square.
_INTEGER_BITS = 14_000

_LEAST = 64  # the least room for a value: enough for the marker that says what was cut
_MARKER = 32  # `"<cut: 1000000000 items>", `, kept for each list and dict until it is complete
_SEPARATORS = len(": , ")
SHORTEST_MEMBER = len('"": 1, ')
_SHORTEST_ITEM = len("1, ")

_CONSTANTS = {None: "null", True: "true", False: "false"}
_NO_NUMBERS = frozenset(("nan", "inf", "-inf"))  # floats that JSON does not have
# These become arrays and objects of JSON.
_COLLECTIONS: tuple[type, ...] = (
    dict, MappingProxyType, list, tuple, set, frozenset, deque, type({}.keys()), type({}.values()), type({}.items()),
)  # fmt: skip

# Text -----------------------------------------------------------------------------------------------------------------


def exact(value: object) -> str:
    """Return `str(value)` as an exact str: a subclass would have the listener run the program's code."""
    return str.__str__(str(value))


def shown(value: object) -> str:
    """Return `exact(value)`, or a marker if it raises."""
    try:
        return exact(value)
    except Exception as error:  # noqa: BLE001 - a hostile __str__
        return _not_shown(value, error)


def _not_shown(value: object, error: Exception) -> str:
    return f"<{type(value).__name__[:NAME_LENGTH]} that cannot be shown: {type(error).__name__[:NAME_LENGTH]}>"


def clean(value: object) -> str:
    """Return a name as SQLite can keep it, cut to NAME_LENGTH."""
    return escape(shown(value)[:NAME_LENGTH])


def level_name(levelno: int) -> str:
    """Return the name of a level. Calls no code of the program, which may have given the level an object as a name."""
    name: object = logging.getLevelName(levelno)
    return str.__str__(name) if issubclass(type(name), str) else f"Level {levelno}"


def escape(text: str) -> str:
    r"""Return `text` as SQLite can keep it: NUL and lone surrogates as \x00 and \udc80."""
    if "\0" in text:
        # SQLite stores it, but length(), LIKE and the shell stop there, so it hides what follows.
        text = text.replace("\0", r"\x00")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            return text.encode(errors="backslashreplace").decode()
    return text


def utf8_length(text: str) -> int:
    """Return the bytes of `text` in UTF-8."""
    return len(text) if text.isascii() else len(text.encode())


def shares(sizes: Sequence[int], total: int) -> list[int]:
    """Share `total` among texts: the short ones get what they need, the long ones the rest in equal parts."""
    limits = [0] * len(sizes)
    for rank, index in enumerate(sorted(range(len(sizes)), key=sizes.__getitem__)):
        limits[index] = total // (len(sizes) - rank)
        total -= min(sizes[index], limits[index])
    return limits


def cut(text: str, limit: int, length: int) -> str:
    """Cut to `limit` bytes of UTF-8, the marker included; `length` is the whole text's, in characters."""
    marker = f" <cut: {length} characters>"
    return text.encode()[: max(0, limit - len(marker))].decode(errors="ignore") + marker


# Attributes -----------------------------------------------------------------------------------------------------------

# Returns the text with its quotes. `json` is slow to import, and makes its encoder anew for each call of `dumps`.
json_text = encode_basestring


def write_json(attributes: dict[str, Any], room: int, hidden: int = 0) -> tuple[str, int]:
    """
    Return attributes as a JSON object in `room` bytes of UTF-8, and the marks: MALFORMED, TRUNCATED, or both.

    There are `hidden` more attributes, which the caller has not looked at.
    """
    names = list(islice(attributes, room // SHORTEST_MEMBER + 1))
    parts, marks = ({}, TRUNCATED) if hidden else _members(attributes, names, room)
    if marks & TRUNCATED:
        # First values of known length, the short before the long: the others get the room that is left.
        lengths = {name: _length(attributes[name]) for name in names}
        unknown = [name for name in names if lengths[name] == sys.maxsize]
        parts, marks = _members(attributes, names, room, lengths)
        if marks & TRUNCATED and any(lengths[name] < sys.maxsize for name in unknown):
            # A list was cut, and others are shorter than their share: their lengths are known now.
            parts, marks = _members(attributes, names, room, lengths)
    written = [parts[name] for name in names if name in parts]
    left = len(attributes) + hidden - len(parts)
    if left:
        written.append(f'"cut": "{left} attributes"')
        marks |= TRUNCATED
    return "{" + ", ".join(written) + "}", marks


def brief(value: object) -> str:
    """Return a value as JSON of NAME_LENGTH bytes at most."""
    return _Json(NAME_LENGTH).of(value)


def _length(value: object) -> int:
    # By `type`, because the class of a proxy may raise, as werkzeug's does outside of a request.
    kind = type(value)
    if issubclass(kind, str):
        return str.__len__(value)  # type: ignore[arg-type]
    if issubclass(kind, bytes | bytearray):
        return memoryview(value).nbytes  # type: ignore[arg-type]
    return 0 if value is None or issubclass(kind, int | float) else sys.maxsize


def _members(
    attributes: dict[str, Any], names: Sequence[str], room: int, lengths: dict[str, int] | None = None
) -> tuple[dict[str, str], int]:
    """
    Write the attributes `names`; return them and the marks.

    Each may take all room that is left, up to the first cut. With `lengths`, the shortest is written first, and each
    takes its fair share at most; afterwards these are the lengths that were found, the greatest for what was cut.
    """
    json = _Json(whole=lengths is None)
    parts: dict[str, str] = {}
    marks, left = 0, room - _MARKER
    for rank, name in enumerate(names if lengths is None else sorted(names, key=lengths.__getitem__)):
        if left < _LEAST or (marks & TRUNCATED and lengths is None):
            break
        json.marks = 0
        key = json.key(name)
        needs = utf8_length(key) + _SEPARATORS
        share = left if lengths is None else max(left // (len(names) - rank), needs + _LEAST)
        if needs + _LEAST <= left:
            json.room = share - needs
            parts[name] = f"{key}: {json.of(attributes[name])}"
            left -= share - json.room
            if lengths is not None:
                lengths[name] = sys.maxsize if json.marks & TRUNCATED else share - json.room
        marks |= json.marks
    return parts, marks | TRUNCATED * (len(parts) < len(attributes))


class _Json:
    """
    Writes values as JSON into `room` bytes. A list or a dict keeps _MARKER of them back until it is complete.

    With `whole`, the caller cannot use a text with a cut, so from the first cut on this does no more work for it.
    """

    __slots__ = ("_around", "_whole", "marks", "room")

    def __init__(self, room: int = 0, *, whole: bool = False) -> None:
        self.room = room
        self.marks = 0
        self._whole = whole
        self._around: frozenset[int] = frozenset()  # the lists and dicts around the value, by their id

    def of(self, value: Any) -> str:  # noqa: C901, PLR0911 - one line for each kind
        """Write a value, or a marker if its code raises."""
        room, around, kind, written = self.room, self._around, type(value), None
        if kind is int and -(2**63) <= value < 2**63:
            written = repr(value)
        elif kind is str and len(value) <= room and value.isascii() and "\0" not in value:
            written = json_text(value)
        if written is not None and len(written) <= room:
            # Nearly all values.
            self.room = room - len(written)
            return written
        try:
            if value is None or value is True or value is False:
                return self._number(_CONSTANTS[value])
            if isinstance(value, str) and type(value).__str__ is str.__str__:
                start = str.__getitem__(value, slice(room))
                return self._text(start, str.__len__(value) - len(start))
            if isinstance(value, int | float):
                return self._number(self._digits(value))
            if isinstance(value, _COLLECTIONS) or type(value).__module__ == "array":  # which few programs import
                return self._items(value)
            if isinstance(value, bytes | bytearray):
                hidden = max(0, len(value) - room)
                kept = b"" if hidden and self._whole else bytes(value[:room])
                return self._text(kept.decode(errors="backslashreplace"), hidden)
            if isinstance(value, BaseException):
                return self._text(self._exception(value))
            return self._text(exact(value))
        except Exception as error:  # noqa: BLE001 - the program's code, and the end of the stack
            self.room, self._around = room, around
            self.marks |= MALFORMED
            return self._text(_not_shown(value, error))

    def _exception(self, error: BaseException) -> str:
        """Return the `repr` of an exception, or as much of its arguments as there is room for."""
        if type(error).__repr__ is BaseException.__repr__:
            args = _Json(self.room, whole=self._whole)
            kept = args.of(error.args)
            if args.marks & TRUNCATED:
                self.marks |= TRUNCATED
                return f"{type(error).__name__[:NAME_LENGTH]}({kept[1:-1]})"
        return exact(repr(error))

    def _text(self, text: str, hidden: int = 0) -> str:
        """Write as much of a text as there is room for; it has `hidden` more characters, which this did not look at."""
        if self._whole and (hidden or len(text) > self.room):
            self.marks |= TRUNCATED
            return ""
        kept = escape(text[: self.room])
        written = json_text(kept)
        size = utf8_length(written)
        length = len(text) + hidden
        if length > self.room or size > self.room:
            self.marks |= TRUNCATED
            marker = f" <cut: {length} characters>"
            while size > self.room - len(marker):
                kept = kept[: len(kept) * (self.room - len(marker)) // size]
                size = utf8_length(json_text(kept))
            written = json_text(kept + marker)
            size += len(marker)
        self.room -= size
        return written

    def _digits(self, value: float) -> str:
        """Return a number as text; one of a subclass too, as JSON does."""
        if isinstance(value, int):
            if value.bit_length() > _INTEGER_BITS:
                raise OverflowError
            return int.__repr__(value)
        return float.__repr__(value)

    def _number(self, digits: str) -> str:
        if digits in _NO_NUMBERS:
            self.marks |= MALFORMED
        elif len(digits) <= self.room:
            self.room -= len(digits)
            return digits
        return self._text(digits)

    def _items(self, value: Any) -> str:
        """Write a list or a dict, unless it is inside itself, or too deep."""
        around = self._around
        if id(value) in around or len(around) == _DEEPEST:
            raise RecursionError
        named = isinstance(value, dict | MappingProxyType)
        most = self.room // (SHORTEST_MEMBER if named else _SHORTEST_ITEM) + 1
        if self._whole and len(value) > most:
            self.marks |= TRUNCATED
            return ""
        self._around = around | {id(value)}
        self.room -= _MARKER
        written: list[str] = []
        # A copy, because another thread may add to the value meanwhile.
        for item in list(islice(value.items() if named else value, most)):
            key = f"{self.key(item[0])}: " if named else ""
            needs = utf8_length(key) + len(", ")
            if self.room < needs + _LEAST:
                self.marks |= TRUNCATED
                more = f"{len(value) - len(written)} items"
                written.append(f'"cut": "{more}"' if named else f'"<cut: {more}>"')
                break
            self.room -= needs
            written.append(key + self.of(item[1] if named else item))
        else:
            self.room += _MARKER - len(", ")
        self._around = around
        text = ", ".join(written)
        return f"{{{text}}}" if named else f"[{text}]"

    def key(self, name: Any) -> str:
        """Write the name of a member, as JSON writes the keys of a dict, and any other as its text."""
        if type(name) is not str:
            if name is None or name is True or name is False:
                return f'"{_CONSTANTS[name]}"'
            try:
                if isinstance(name, int | float):
                    name = self._digits(name)
                    if name in _NO_NUMBERS:
                        self.marks |= MALFORMED
                else:
                    name = exact(name)
            except Exception as error:  # noqa: BLE001 - the program's code, and an integer that is too long
                self.marks |= MALFORMED
                name = _not_shown(name, error)
        if len(name) > NAME_LENGTH:
            self.marks |= TRUNCATED
        return json_text(clean(name))
