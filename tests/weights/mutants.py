"""Converts damaged copies of a checkpoint, one after another: run as a process with little memory and time.

Arguments: the checkpoint, how many, a seed, a folder to work in, a file that nothing may make.
Prints JSON counts.
"""

import faulthandler
import json
import random
import re
import resource
import sys
import time
from collections import Counter
from pathlib import Path

from maskrcnn.errors import UserError
from maskrcnn.weights.convert import convert

MEMORY = 500 << 20
SECONDS = 60  # of a machine that others use too; the report says the slowest in seconds of the processor
PLACES = re.compile(rb"weight|bias|running_|F32|Float32|numpy|torch|Storage")


def flipped(data: bytearray, at: int, choice: random.Random) -> None:
    """One bit, or a few in a row of bytes."""
    for place in range(at, min(at + choice.choice((1, 1, 2, 16)), len(data))):
        data[place] ^= 1 << choice.randrange(8)


def truncated(data: bytearray, at: int, choice: random.Random) -> None:
    """Everything from a place on is gone."""
    del data[at:]


def huge(data: bytearray, at: int, choice: random.Random) -> None:
    """A number becomes a very large or negative one."""
    run = re.search(rb"\d+", data[at : at + 200])
    if run and choice.random() < 0.5:
        data[at + run.start() : at + run.end()] = b"9" * choice.choice((1, 3, 9, 12, 18, 30, 5000))
    else:
        length = choice.choice((1, 2, 4, 8))
        data[at : at + length] = choice.choice((b"\xff", b"\x7f", b"\x80", b"\x00")) * length


def nested(data: bytearray, at: int, choice: random.Random) -> None:
    """Thousands of an opening sign of pickle, JSON or protobuf."""
    sign = choice.choice((b"(", b"]", b"}", b"[", b'{"a":', b"\x0a\x7f", b"\x85", b"\x94", b" ", b"\n", b"."))
    data[at:at] = sign * choice.choice((2, 100, 5_000, 200_000))


def spliced(data: bytearray, at: int, choice: random.Random) -> None:
    """A piece of the file stands elsewhere in it too, or instead of another."""
    start, length = choice.randrange(len(data)), choice.choice((1, 8, 64, 1000, 20_000))
    piece = data[start : start + length]
    data[at : at + (length if choice.random() < 0.5 else 0)] = piece


def removed(data: bytearray, at: int, choice: random.Random) -> None:
    """A piece is missing, or zeros."""
    length = choice.choice((1, 8, 64, 1000))
    data[at : at + length] = b"" if choice.random() < 0.5 else bytes(length)


def place(data: bytes, choice: random.Random, names: list[int]) -> int:
    """Most often near a name, the beginning or the end, where the structure is."""
    where = choice.random()
    if where < 0.4 and names:
        return min(max(choice.choice(names) + choice.randint(-40, 40), 0), len(data) - 1)
    if where < 0.8:
        return choice.randrange(min(len(data), 4000)) if where < 0.6 else -1 - choice.randrange(4000)
    return choice.randrange(len(data))


def mutant(original: bytes, names: list[int], choice: random.Random) -> bytes:
    """One to three kinds of damage."""
    data = bytearray(original)
    for _ in range(choice.choice((1, 1, 2, 3))):
        damage = choice.choice((flipped, flipped, huge, huge, truncated, nested, spliced, removed))
        at = place(data, choice, names)
        damage(data, at % max(len(data), 1), choice)
        if not data:
            break
    return bytes(data)


def main(source: Path, count: int, seed: int, folder: Path, canary: Path) -> None:
    """Convert them all; an exception but UserError, or the file that nothing may make, ends the process."""
    original = source.read_bytes()
    names = [match.start() for match in PLACES.finditer(original)]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    size = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))
    path, out = folder / f"x{source.suffix}", folder / "out.safetensors"
    counts: Counter[str] = Counter()
    slowest = 0.0
    for number in range(count):
        path.write_bytes(mutant(original, names, random.Random(f"{seed} {number}")))
        faulthandler.dump_traceback_later(SECONDS, exit=True)
        start = time.process_time()
        try:
            convert(path, out)
            counts["loaded"] += 1
        except UserError as error:
            assert error.message and not out.exists()
            counts["refused"] += 1
        except BaseException:
            print(f"mutant {number} of seed {seed}", file=sys.stderr)
            raise
        slowest = max(slowest, time.process_time() - start)
        faulthandler.cancel_dump_traceback_later()
        out.unlink(missing_ok=True)
        assert not canary.exists(), f"mutant {number} of seed {seed} ran something"
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(json.dumps({**counts, "slowest": round(slowest, 2), "grown_mb": grown >> 10}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]), Path(sys.argv[5]))
