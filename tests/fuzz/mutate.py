"""Damage by structure: values of JSON, YAML and pickles, text by words and lines, files by bytes."""

from __future__ import annotations

import copy
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from typing import Any

Place = tuple[Any, ...]  # the keys that lead to a value

LONG = "long " * 2000
TEXTS = [
    "",
    "x",
    " ",
    "0",
    "1e999",
    "nan",
    "true",
    "null",
    "../../a",
    "/",
    "é\u202e\ud83d",
    "\ud800",
    "a\0b",
    "[bold]x",
]
NUMBERS = [0, -1, 1, 2, 3, 7, 2**31, 2**63, 10**30, 10**400, 0.5, -0.0, 1e-320, 1e308]
NUMBERS += [float("nan"), float("inf"), float("-inf")]
OTHERS = [None, True, False, [], {}, [[]], [1], ["a", "b"], {"a": 1}, {"": {}}, [None, None]]
JUNK: list[Any] = [*TEXTS, LONG, *NUMBERS, *OTHERS]
DEPTHS = (3, 30, 300, 3000)
REPEATS = (2, 5, 40, 3000)
MOST = 1 << 22  # values and characters of what is repeated: the input itself is to be made in a moment
# What YAML and its kind make something else of; a number of very many digits, or what begins like one.
SIGNS = [
    ",",
    ";",
    ":",
    "\t",
    '"',
    "'",
    "!!python/object:os.system",
    "!!int ",
    "!!float ",
    "!!bool ",
    "<<: ",
    "&a ",
    "*a ",
]
NUMBERLIKE = [("1", "1", "x"), ("1", "_1", "e"), ("1", ":59", ""), ("0x", "f", ""), ("1e", "9", ""), ("0.", "0", "1")]
LENGTHS = (20, 400, 5000, 100_000)
WORD = re.compile(r"[\w.+-]+|\"[^\"]*\"")


@contextmanager
def deep_values() -> Iterator[None]:
    """Values that are nested thousands of levels deep can be copied and written in this context."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(100_000)
    try:
        yield
    finally:
        sys.setrecursionlimit(limit)


def places(value: Any, most: int = 5000) -> list[Place]:
    """The places of values inside a value, outermost first."""
    found: list[Place] = [()]
    for place in found:  # which grows as it goes
        inner = at(value, place)
        keys: Any = inner if isinstance(inner, dict) else range(len(inner)) if isinstance(inner, list | tuple) else ()
        found += [(*place, key) for key in keys]
        if len(found) > most:
            break
    return found


def size(value: Any) -> int:
    """How many values and characters there are in a value, counted to `MOST`."""
    count, waiting = 0, [value]
    while waiting and count < MOST:
        one = waiting.pop()
        count += 1 + (len(one) if isinstance(one, str) else 0)
        waiting += one.values() if isinstance(one, dict) else one if isinstance(one, list | tuple) else ()
    return count


def at(value: Any, place: Place) -> Any:
    """The value at a place."""
    for key in place:
        value = value[key]
    return value


def junk(rng: Random, like: Any = None) -> Any:
    """Something that should not be there: of another type, too large, too deep, too long."""
    if isinstance(like, bool | int | float) and rng.random() < 0.3:
        return rng.choice([-like, like * 1000, str(like), [like], like * 10**9])
    if isinstance(like, str) and rng.random() < 0.3:
        return rng.choice([like * rng.choice(REPEATS), like.upper(), like[:-1], [like], like + "\n", "/" + like])
    if rng.random() < 0.1:
        value: Any = copy.deepcopy(rng.choice(OTHERS))
        for _ in range(rng.choice(DEPTHS)):
            value = [value] if rng.random() < 0.7 else {"a": value}
        return value
    return copy.deepcopy(rng.choice(JUNK))


def mutated(value: Any, rng: Random, most: int = 3) -> Any:
    """A copy of a value of dicts and lists, damaged in one place or a few."""
    value = copy.deepcopy(value)
    for _ in range(rng.randint(1, most)):
        value = _mutated_once(value, rng)
    return value


def _mutated_once(value: Any, rng: Random) -> Any:
    everywhere = places(value)
    depth = rng.randint(0, max(map(len, everywhere)))  # shallow places are few, and matter as much
    place = rng.choice([one for one in everywhere if len(one) == depth])
    old = at(value, place)
    if not place:
        return value if rng.random() < 0.8 else junk(rng, old)
    *above, key = place
    holder = at(value, tuple(above))
    if isinstance(holder, tuple):
        place, old, key = (*above,), holder, above[-1] if above else None
        if key is None:
            return junk(rng, old)
        holder = at(value, place[:-1])
        if isinstance(holder, tuple):
            return value
    kind = rng.choice(("junk", "junk", "junk", "drop", "double", "rename", "swap", "repeat"))
    if kind == "junk":
        holder[key] = junk(rng, old)
    elif kind == "drop":
        del holder[key]
    elif kind == "double" and isinstance(holder, list):
        holder.insert(rng.randint(0, len(holder)), copy.deepcopy(old))
    elif kind == "rename" and isinstance(holder, dict):
        holder[rng.choice([f"{key}s", "x", LONG, 0, None, True, 1.5])] = holder.pop(key)
    elif kind == "repeat" and isinstance(old, list | str):
        holder[key] = old * min(rng.choice(REPEATS), max(1, MOST // size(old)))
    else:
        holder[key] = copy.deepcopy(at(value, rng.choice(everywhere)))
    return value


def damaged_text(text: str, rng: Random) -> bytes:
    """Text with words replaced, lines dropped, doubled or exchanged, cut off, nested, or in another encoding."""
    for _ in range(rng.randint(1, 3)):
        kind = rng.choice(("word", "word", "word", "line", "cut", "nest", "insert"))
        words, lines = list(WORD.finditer(text)), text.split("\n")
        if kind == "word" and words:
            word = rng.choice(words)
            text = text[: word.start()] + _word(rng, word[0]) + text[word.end() :]
        elif kind == "line":
            number = rng.randrange(len(lines))
            lines[number : number + 1] = rng.choice(
                ([], [lines[number]] * 2, [rng.choice(lines)], [lines[number][::2]])
            )
            text = "\n".join(lines)
        elif kind == "cut":
            text = text[: rng.randint(0, len(text))]
        elif kind == "nest":
            where, mark = rng.randint(0, len(text)), rng.choice(("[", "{", "(", '{"a":', "<a>", "- ", "&a [*a,"))
            text = text[:where] + mark * rng.choice((*DEPTHS, 100_000)) + text[where:]
        else:
            where = rng.randint(0, len(text))
            text = text[:where] + rng.choice([*TEXTS, *SIGNS]) + text[where:]
    encoding = rng.choice(("utf-8",) * 8 + ("utf-8-sig", "utf-16", "latin-1"))
    return text.encode(encoding, "surrogatepass" if encoding != "latin-1" else "replace")


def _word(rng: Random, word: str) -> str:
    quoted = word.startswith('"')
    new = rng.choice(
        [_text(rng.choice(JUNK)), _text(junk(rng)), "9" * rng.choice(LENGTHS), "-" + word.strip('"')]
        + [first + part * rng.choice(LENGTHS) + last for first, part, last in NUMBERLIKE if rng.random() < 0.2]
    )
    return f'"{new}"' if quoted and rng.random() < 0.8 else new


def damaged_bytes(content: bytes, rng: Random) -> bytes:
    """A file with bits flipped, a part overwritten, dropped or doubled, cut off, or another file's start."""
    data = bytearray(content)
    for _ in range(rng.randint(1, 3)):
        if not data:
            break
        start = rng.randrange(len(data)) if rng.random() < 0.6 else rng.randrange(min(len(data), 400))
        end = min(start + rng.choice((1, 2, 4, 8, 64, 1000)), len(data))
        kind = rng.choice(("flip", "flip", "set", "drop", "double", "cut"))
        if kind == "flip":
            for _ in range(rng.choice((1, 4, 30))):
                data[rng.randrange(start, end)] ^= 1 << rng.randrange(8)
        elif kind == "set":
            data[start:end] = rng.choice((b"\0", b"\xff", b"\x7f", b"\x80")) * (end - start)
        elif kind == "drop":
            del data[start:end]
        elif kind == "double":
            data[end:end] = data[start:end] * rng.choice((1, 100))
        else:
            del data[start:]
    return bytes(data)


def damaged_zip(content: bytes, rng: Random) -> bytes:
    """A zip file whose directory says something else of a few of its parts: how packed, how long, where, what name."""
    data = bytearray(content)
    entries = [match.start() for match in re.finditer(rb"PK\x01\x02", content)]
    for _ in range(rng.randint(1, 3)):
        place, length = rng.choice(
            ((8, 2), (10, 2), (16, 4), (20, 4), (24, 4), (28, 2), (30, 2), (38, 4), (42, 4), (46, 3))
        )
        value = rng.choice((0, 1, 8, 9, 12, 14, 99, 0xA1ED0000, 0xF0000000, 0xFFFFFFFF, rng.getrandbits(8 * length)))
        for start in entries if rng.random() < 0.3 else [rng.choice(entries)] if entries else []:
            data[start + place : start + place + length] = (value % (1 << 8 * length)).to_bytes(length, "little")
    return bytes(data)


def _text(value: Any) -> str:
    try:
        return str(value)[:100_000]
    except (RecursionError, ValueError):  # too deep; more digits than Python writes
        return "[" * 1000
