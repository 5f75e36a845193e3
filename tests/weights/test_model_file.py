"""Model files on disk."""

from pathlib import Path

import numpy as np

from maskrcnn.spec import Spec
from maskrcnn.weights.model_file import read_model_file, write_model_file


def test_a_model_file_can_be_read_by_whom_other_new_files_can(tmp_path: Path) -> None:
    plain, model = tmp_path / "plain", tmp_path / "model.safetensors"
    plain.touch()
    write_model_file(model, Spec(), {"a": np.zeros(3, np.float32)})
    assert model.stat().st_mode == plain.stat().st_mode


def test_half_precision_is_stored_in_two_bytes_and_read_as_float32(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    numbers = {"a": np.float32([0.5, 1 / 3]), "count": np.array(7)}
    write_model_file(path, Spec(precision="fp16"), numbers)
    spec, state = read_model_file(path)
    assert (spec.precision, state["a"].dtype, state["count"].tolist()) == ("fp16", np.float32, 7)
    assert state["a"].tolist() == [0.5, float(np.float16(1 / 3))]
