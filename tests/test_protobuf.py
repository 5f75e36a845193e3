"""Messages are read field by field, and what is none is refused."""

from pathlib import Path

import pytest

from maskrcnn.protobuf import NoMessage, field, fields, mapped, parts, written

# Field 1 the number 300, field 2 "ab", field 3 four bytes, field 4 eight.
MESSAGE = b"\x08\xac\x02" + b"\x12\x02ab" + b"\x1d1234" + b"\x2112345678"


def test_every_kind_of_field_comes_with_its_place() -> None:
    found = list(fields(memoryview(MESSAGE)))
    assert [(each.number, each.start, each.end) for each in found] == [
        (1, 0, 3),
        (2, 3, 7),
        (3, 7, 12),
        (4, 12, 21),
    ]
    assert found[0].value == 300
    assert [bytes(each.value) for each in found[1:] if not isinstance(each.value, int)] == [
        b"ab",
        b"1234",
        b"12345678",
    ]


def test_parts_are_those_of_one_number_that_hold_bytes() -> None:
    message = memoryview(field(2, b"a") + b"\x10\x05" + field(2, b"bc") + field(3, b"d"))
    assert [bytes(each) for each in parts(message, 2)] == [b"a", b"bc"]


def test_what_is_written_is_read_again() -> None:
    assert (written(0), written(127), written(300)) == (b"\x00", b"\x7f", b"\xac\x02")
    long = bytes(200)
    (found,) = fields(memoryview(field(1000, long)))
    assert (found.number, found.value) == (1000, long)


@pytest.mark.parametrize(
    ("message", "error"),
    [
        (b"\x08", "ends within a number"),
        (b"\x08" + b"\xff" * 11, "more than 64 bits"),
        (b"\x12\x03ab", "ends after its message"),
        (b"\x1d123", "ends after its message"),
        (b"\x02\x00", "the number 0"),
        (b"\x0b", "the wire type 3"),
    ],
)
def test_what_is_no_message_is_refused(message: bytes, error: str) -> None:
    with pytest.raises(NoMessage, match=error):
        list(fields(memoryview(message)))


def test_a_file_is_read_as_it_lies_and_an_empty_one_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(MESSAGE)
    assert mapped(tmp_path / "a") == MESSAGE
    (tmp_path / "b").touch()
    with pytest.raises(NoMessage, match="it is empty"):
        mapped(tmp_path / "b")
