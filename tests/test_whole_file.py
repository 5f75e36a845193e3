"""A file is written whole or not at all."""

import os
from pathlib import Path

import pytest

from maskrcnn.errors import UserError
from maskrcnn.whole_file import whole_file


def test_an_older_file_stays_when_writing_fails(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(ZeroDivisionError), whole_file(tmp_path / "a.txt") as temporary:
        temporary.write_text("new")
        _ = 1 / 0
    assert (tmp_path / "a.txt").read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_file_in_place_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with (
        pytest.raises(UserError, match=r"file/a\.txt: cannot be written"),
        whole_file(tmp_path / "file" / "a.txt"),
    ):
        pass


def test_a_url_is_refused_before_a_folder_of_its_name_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with (
        pytest.raises(UserError, match=r"s3:/bucket/a\.txt: is a URL"),
        whole_file(Path("s3://bucket/a.txt")),
    ):
        pass
    assert os.listdir(tmp_path) == []
