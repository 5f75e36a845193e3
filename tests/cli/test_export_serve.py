"""`maskrcnn export --serve`: which server, which name, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
from commands import Run

from maskrcnn.export.form import Form
from maskrcnn.export.gate import Gated
from maskrcnn.spec import Check

pytest.importorskip("onnx")


@pytest.fixture
def places(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, Form]]:
    """Where models were asked for, and in which form; each passes."""
    asked: list[tuple[Any, Form]] = []

    def write_repository(model: Path, place: Any, form: Form, *_: object) -> Gated:
        asked.append((place, form))
        return Gated(place.file, Check(images=1, matched=2, on="1 image"))

    monkeypatch.setattr("maskrcnn.export.repository.write_repository", write_repository)
    return asked


def test_the_model_is_called_as_its_file_unless_it_gets_a_name(
    run: Run, model_file: Path, tmp_path: Path, places: list[tuple[Any, Form]]
) -> None:
    out = tmp_path / "served"
    ran = run("export", model_file, out, "--serve", "triton", "--size", "96x160")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.splitlines()[1] == f"-> {out / model_file.stem}, version 1, for triton"
    assert run("export", model_file, out, "--serve", "ovms", "--name", "street signs").code == 0
    assert [(place.server, place.name) for place, _ in places] == [
        ("triton", model_file.stem),
        ("ovms", "street-signs"),
    ]
    assert places[0][1] == Form((96, 160))


@pytest.mark.parametrize(
    ("words", "error", "hint"),
    [
        ("--name a", "--name: is of a model in a repository", "add --serve triton or --serve ovms"),
        ("--serve triton --plain", "--plain: --serve writes one graph", "leave it out"),
        ("--serve ovms --contract model-api", "--contract: --serve writes one graph", "leave it out"),
        ("--serve ovms --name ///", "///: is no name for a model", "--name"),
        ("--serve torch", "torch", ""),
    ],
)
def test_what_cannot_be_served_is_told_before_anything_is_traced(
    run: Run, model_file: Path, tmp_path: Path, words: str, error: str, hint: str
) -> None:
    ran = run("export", model_file, tmp_path / "served", *words.split())
    assert (ran.code, ran.out) == (2, "")
    assert error in ran.err
    assert hint in ran.err
    assert not (tmp_path / "served").exists()


def test_a_rejected_model_ends_with_1_and_names_where_it_is_kept(
    run: Run, model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "served.rejected" / "model.onnx.rejected"
    gated = Gated(kept, Check(), fault="differs at stage `res4`", shows="1.jpg")
    monkeypatch.setattr("maskrcnn.export.repository.write_repository", lambda *_: gated)
    ran = run("export", model_file, tmp_path / "served", "--serve", "triton")
    assert (ran.code, ran.out) == (1, "")
    assert f"model.onnx differs at stage `res4`; kept as {kept}" in ran.err
    assert f"maskrcnn compare {model_file} {kept} 1.jpg --stages" in ran.err
