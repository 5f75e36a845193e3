"""MindSpore's YAML: bases are joined in order, what is wrong with a file is told, 0001 is no thousandth."""

from pathlib import Path

import pytest

from maskrcnn.compat.mindspore_config import merged, read_config
from maskrcnn.errors import UserError


def written(folder: Path, **texts: str) -> Path:
    for name, text in texts.items():
        (folder / f"{name}.yml").write_text(text, encoding="utf-8")
    return folder / f"{next(iter(texts))}.yml"


def test_its_own_keys_come_over_its_bases_and_a_later_base_over_an_earlier(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        a="__BASE__: [b.yml, ./c.yml]\nx: {one: 1}\n",
        b="x: {one: b, two: b, three: b}\nlist: [1, 2, 3]\n",
        c="__BASE__: [d.yml]\nx: {two: c}\nlist: [4]\n",
        d="x: {two: d, three: d}\ny: d\n",
    )
    config = read_config(path)
    assert config.values == {"x": {"one": 1, "two": "c", "three": "d"}, "list": [4], "y": "d"}
    assert [file.name for file in config.files] == ["a.yml", "b.yml", "c.yml", "d.yml"]
    assert (config.get("x.two"), config.get("x.two.more", 7), config.get("z")) == ("c", 7, None)


def test_bases_stand_beside_the_file_that_names_them_or_in_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for folder in ("home", "config/sub"):
        (tmp_path / folder).mkdir(parents=True)
    written(tmp_path / "home", far="far: 1\n")
    written(tmp_path / "config", up="up: 1\n")
    path = written(tmp_path / "config" / "sub", a="__BASE__: ['../up.yml', '~/far.yml']\n")
    assert read_config(path).values == {"up": 1, "far": 1}


def test_mappings_are_joined_and_lists_replaced() -> None:
    assert merged({"a": {"b": 1, "c": [1, 2]}, "d": {"e": 1}}, {"a": {"c": [3]}, "d": 5}) == {
        "a": {"b": 1, "c": [3]},
        "d": 5,
    }


def test_of_three_documents_the_first_is_the_configuration(tmp_path: Path) -> None:
    path = written(tmp_path, a="x: 1\n---\nx: help\n---\nx: [1, 2]\n")
    assert read_config(path).values == {"x": 1}
    with pytest.raises(UserError, match=r"a\.yml: has 4 documents"):
        read_config(written(tmp_path, a="x: 1\n---\n---\n---\nx: 2\n"))


@pytest.mark.parametrize(
    ("texts", "sentence"),
    [
        ({"a": "__BASE__: [b.yml]", "b": "__BASE__: [a.yml]"}, r"circle \(a.yml -> b.yml -> a.yml\)"),
        ({"a": "__BASE__: [a.yml]"}, r"circle \(a.yml -> a.yml\)"),
        ({"a": "__BASE__: [gone.yml]"}, r"gone\.yml: cannot be read \(No such file.*named by .*a\.yml"),
        ({"a": "__BASE__: [b.json]"}, r"b\.json: is no \.yml or \.yaml \(named by"),
        ({"a": "__BASE__: {b: 1}"}, "is no list of files"),
        ({"a": "x: [1"}, r"a\.yml: is not YAML"),
        ({"a": "- 1"}, r"a\.yml: holds no settings"),
        ({"a": "!!python/object/apply:os.system [true]"}, "is not YAML"),
    ],
)
def test_what_is_wrong_with_a_file_is_told(tmp_path: Path, texts: dict[str, str], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        read_config(written(tmp_path, **texts))


def test_an_empty_file_says_nothing(tmp_path: Path) -> None:
    assert list(read_config(written(tmp_path, a="")).leaves()) == []


def test_the_octal_ratio_is_what_was_meant_unless_exact(tmp_path: Path) -> None:
    path = written(tmp_path, a="__BASE__: [b.yml]\nx: 1\n", b="lr: {warmup_ratio: 0001, step: 010}\n")
    config, exact = read_config(path), read_config(path, exact=True)
    assert config.values["lr"] == {"warmup_ratio": 0.001, "step": 8}
    assert exact.values["lr"] == {"warmup_ratio": 1, "step": 8}
    assert config.notes == (
        "b.yml: lr.warmup_ratio: 0001 is the octal number 1 in YAML, without any warm-up; 0.001 is meant and "
        "taken (--exact takes 0001)",
        "b.yml: lr.step: 010 is the octal number 8 in YAML",
    )
    assert exact.notes[0].endswith("so there is no warm-up")
