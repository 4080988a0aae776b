"""Files that somebody made to break a command: from right ones, by a seed, with what parsers and printers choke on."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator
from typing import Any

DIGITS = "9" * 5_000
NESTED = "[" * 5_000 + "]" * 5_000
TERMINAL = "\x1b[2J\x1b]0;owned\x07\u202e\u2066\x9b31m\r\nverifier: all good"

# What a value becomes: as it is spelled in JSON. Some of it is none.
JSON_VALUES = (
    *("null", "true", "-1", "0", "1000000000000", "1e400", DIGITS, "NaN", "Infinity", "-Infinity", NESTED, "{", ""),
    *('""', '"x"', '"/dev/zero"', '"\\ud800"', '"\\u0000"', "[]", "[[]]", "{}", '{"a": {"b": []}}', "1.5", "1e300"),
    *('"nan"', '"inf"', json.dumps(TERMINAL), json.dumps("x" * 100_000), '{"\\u001b[2J": 1}', "[1, 2]", "2147483648"),
)
TOML_VALUES = (
    *("true", "-1", "0", "1e400", "nan", "inf", DIGITS, NESTED, "", "[]", "{}", '""', '"x"', "[[]]", "2027-99-99", "'"),
    *('"\\u001b[2J"', '"\\u0000"', "1979-05-27", "10:00", '["\\u202e"]', "{a = {b = []}}", '"/dev/zero"', "0x1F", "{"),
    *("18446744073709551616", '"' + "x" * 100_000 + '"', "[1, 2]", '"1e999"', '"' + DIGITS + '"'),
)


def mutate_bytes(content: bytes, draw: random.Random) -> bytes:
    """Change a file without a thought of what it means."""
    at = draw.randrange(len(content) + 1)
    return draw.choice(
        (
            content[:at],
            content[at:],
            content[:at] + bytes(draw.randrange(256) for _ in range(4)) + content[at:],
            content[:at] + b"\0" + content[at + 1 :],
            content.replace(b"\n", b""),
            content.replace(b"\n", b"\r"),
            content.decode().encode("utf-16"),
            b"\xef\xbb\xbf" + content,
            content + content,
            content[:at] + b"\xff\xfe" + content[at:],
            content[:at] + TERMINAL.encode() + content[at:],
            b"",
            b"\n" * 3,
        )
    )


def mutate_json(value: Any, draw: random.Random) -> str:
    """Spell JSON in which one value is another, gone, there twice, or beside a stranger."""
    places = list(_places(value))
    path = draw.choice(places)
    made = json.loads(json.dumps(value))
    at = made
    for key in path[:-1]:
        at = at[key]
    what = draw.choice(("value", "value", "value", "value", "gone", "twice", "stranger"))
    if what == "gone":
        del at[path[-1]]
        return json.dumps(made)
    if what == "stranger" and isinstance(at, dict):
        at["stranger" + TERMINAL] = at[path[-1]]
        return json.dumps(made)
    at[path[-1]] = mark = "@@here@@"
    spelled = draw.choice(JSON_VALUES)
    if what == "twice" and isinstance(at, dict):
        spelled = f"{spelled}, {json.dumps(path[-1])}: {draw.choice(JSON_VALUES)}"
    return json.dumps(made).replace(json.dumps(mark), spelled)


def mutate_toml(content: str, draw: random.Random) -> str:
    """Change a TOML file: a value, a key, a table, or its order."""
    lines = content.splitlines()
    settings = [number for number, line in enumerate(lines) if " = " in line]
    number = draw.choice(settings)
    key, _, before = lines[number].partition(" = ")
    lines[number] = draw.choice(
        (
            *(f"{key} = {draw.choice(TOML_VALUES)}" for _ in range(6)),
            f"{key} = {before}\n{key} = {before}",
            f"{'a.' * 5_000}{key} = {before}",
            f'"{key}\\u001b[2J" = {before}',
            f"[{key}]\nx = {before}",
            f"[[{key}]]",
            "",
        )
    )
    return "\n".join(lines) + "\n"


def mutate_lines(lines: list[dict[str, Any]], draw: random.Random) -> bytes:
    """Change a file of JSON lines: a value of one, the order, or the bytes."""
    spelled = [json.dumps(line) for line in lines]
    number = draw.randrange(len(lines))
    what = draw.randrange(8)
    if what == 0:
        return mutate_bytes("".join(f"{line}\n" for line in spelled).encode(), draw)
    if what == 1:
        draw.shuffle(spelled)
    elif what == 2:
        spelled.insert(number, draw.choice((*JSON_VALUES, spelled[number])))
    else:
        spelled[number] = mutate_json(lines[number], draw)
    return "".join(f"{line}\n" for line in spelled).encode(errors="surrogatepass")


def either(mutate: Callable[[str, random.Random], str], content: str, draw: random.Random) -> bytes:
    """Change the meaning of a file, or, one time of five, its bytes."""
    if draw.randrange(5) == 0:
        return mutate_bytes(content.encode(), draw)
    return mutate(content, draw).encode(errors="surrogatepass")


def harmful(text: str) -> list[str]:
    """The characters of a text that a terminal would obey."""
    return re.findall("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text)


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inner:
        yield from _places(one, (*path, key))
