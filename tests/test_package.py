"""What is given to users: the wheel, and the two commands of a fresh checkout."""

import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from maskrcnn.demo import PHOTOGRAPHS, write_photographs
from maskrcnn.errors import UserError

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout, built from a copy so that no old build/ takes part."""
    pytest.importorskip(
        "setuptools", minversion="77", reason="needs setuptools 77 to build without a network"
    )
    copy, out = tmp_path_factory.mktemp("checkout"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        (copy / name).write_bytes((ROOT / name).read_bytes())
    for path in (ROOT / "src" / "maskrcnn").rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            target = copy / path.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-build-isolation",
        "--no-deps",
        "--no-index",
        "--quiet",
    ]
    done = subprocess.run(
        [*build, "--wheel-dir", str(out), str(copy)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return next(out.glob("*.whl"))


def test_the_wheel_is_pure_python(wheel: Path) -> None:
    assert wheel.name.endswith("-py3-none-any.whl")


def test_the_wheel_is_smaller_than_25_mb(wheel: Path) -> None:
    assert wheel.stat().st_size < 25_000_000


def test_the_wheel_holds_every_module_the_example_model_and_the_type_marker(wheel: Path) -> None:
    modules = {
        path.relative_to(ROOT / "src").as_posix() for path in (ROOT / "src" / "maskrcnn").rglob("*.py")
    }
    held = set(zipfile.ZipFile(wheel).namelist())
    assert modules | {"maskrcnn/example.safetensors", "maskrcnn/py.typed"} <= held


def test_the_wheel_holds_nothing_but_the_package_and_its_licence(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert [name for name in names if not name.startswith(("maskrcnn/", "maskrcnn-"))] == []
    assert any(name.endswith("/licenses/LICENSE") for name in names)


def test_the_base_installation_asks_for_no_torch_and_no_engine() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    heavy = ("torch", "onnx", "openvino", "tensorrt", "matplotlib", "scikit", "scipy")
    assert [name for name in project["dependencies"] if name.startswith(heavy)] == []
    assert {"torch", "onnx", "openvino", "train", "serve", "all", "dev"} <= set(
        project["optional-dependencies"]
    )


def test_the_photographs_are_written_from_the_installed_packages(tmp_path: Path) -> None:
    pytest.importorskip("skimage", reason="needs the extra `demo`")
    pytest.importorskip("matplotlib", reason="needs the extra `demo`")
    written = write_photographs(tmp_path / "a" / "b")
    names = ["astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "grace_hopper.jpg"]
    assert [path.name for path in written] == names
    assert sorted(os.listdir(tmp_path / "a" / "b")) == sorted(names)
    assert all(path.stat().st_size > 50_000 for path in written)


def test_a_missing_photograph_is_named_with_the_way_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("maskrcnn.demo.PHOTOGRAPHS", (("no_such_package", "data/x.png"), *PHOTOGRAPHS))
    with pytest.raises(UserError, match=r"no_such_package/data/x\.png") as caught:
        write_photographs(tmp_path)
    assert "maskrcnn[demo]" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def make_venv(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the first step of `make demo` and `make test`."""
    return subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "make_venv.py"), "env"],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_folder_in_the_place_of_the_environment_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "env").mkdir()
    (tmp_path / "env" / "letter.txt").write_text("dear")
    done = make_venv(tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: env is there and is not a virtual environment\nhint: ")
    assert (tmp_path / "env" / "letter.txt").read_text() == "dear"


def test_an_environment_whose_making_was_interrupted_is_made_again(tmp_path: Path) -> None:
    (tmp_path / "env").mkdir()
    (tmp_path / "env" / "pyvenv.cfg").write_text("")
    assert make_venv(tmp_path).returncode == 0
    pip = subprocess.run([tmp_path / "env" / "bin" / "python", "-m", "pip", "--version"], check=False)
    assert pip.returncode == 0
    assert make_venv(tmp_path).stdout == ""


def test_no_public_name_is_hidden_by_a_module_of_its_name() -> None:
    text = "from maskrcnn import draw, open_model, read_image; print(draw, open_model, read_image)"
    checked = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    assert checked.stdout.count("<function ") == 3
