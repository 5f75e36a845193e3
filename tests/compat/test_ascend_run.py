"""Engines run on `.bin` files: what they are fed, the files that they leave, times, and pure inference."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bright_boxes import (
    CLASSES,
    LABEL,
    ROWS,
    SCENES,
    SIDE,
    WINDOW,
    our_model,
    photographs,
    their_model,
)

from maskrcnn.backends.contracts.ascend import mmdetection_spec
from maskrcnn.compat.ascend.bins import Bins
from maskrcnn.compat.ascend.outputs import Outputs, load, save, stems_in
from maskrcnn.compat.ascend.run import Manner, bins_of, files_in, read_bin, run_alone, run_bins, runs_of
from maskrcnn.compat.ascend.summary import Summary, described_results, write_summary
from maskrcnn.compat.ascend.write import write_bins
from maskrcnn.errors import UserError
from maskrcnn.images import find_images
from maskrcnn.predict import Predictor
from maskrcnn.spec import Exported

SPEC = mmdetection_spec(WINDOW)
STEMS = sorted(Path(name).stem for name in SCENES)


@pytest.fixture
def bins(tmp_path: Path) -> Path:
    """Normalised, in a letterbox with zeros around."""
    folder = tmp_path / "bins"
    list(write_bins(find_images([photographs(tmp_path / "val")]), folder, Bins(SPEC)))
    return folder


def ran(predictor: Predictor, folder: Path, out: Path | None, manner: Manner | None = None) -> Summary:
    described = bins_of(predictor, folder, None)
    return run_bins(runs_of(predictor, described), described, files_in(folder), out, manner or Manner())


def filled(classes: int = CLASSES) -> Outputs:
    """Three rows with scores, the last two out of order, and a mask of its own in each class."""
    chance = np.random.default_rng(0)
    dets = np.zeros((ROWS, 5), np.float32)
    dets[:3] = [[1, 2, 30, 40, 0.9], [0, 0, 9, 9, 0.2], [5, 5, 8, 8, 0.6]]
    labels = np.zeros(ROWS, np.int32)
    labels[:3] = [3, 79, 0]
    return Outputs(dets, labels, chance.random((ROWS, classes, SIDE, SIDE), np.float32), CLASSES)


def test_three_files_of_their_sizes(tmp_path: Path) -> None:
    paths = save(filled(), tmp_path, "000000000139")
    assert [path.name for path in paths] == [f"000000000139_{number}.bin" for number in range(3)]
    assert [path.stat().st_size for path in paths] == [2000, 400, 25_088_000]


def test_the_masks_of_the_labels_alone_take_an_eightieth(tmp_path: Path) -> None:
    paths = save(filled(), tmp_path, "a", compact=True)
    assert paths[2].stat().st_size == 25_088_000 // 80 == 313_600


@pytest.mark.parametrize("kind", ["BIN", "NPY", "TXT"])
@pytest.mark.parametrize("compact", [False, True])
def test_what_is_saved_is_read_back(tmp_path: Path, kind: Any, compact: bool) -> None:
    spec = replace(SPEC, model=replace(SPEC.model, classes=4))
    outputs = filled(4)
    outputs = Outputs(outputs.dets, outputs.labels.clip(0, 3), outputs.masks, 4)
    save(outputs, tmp_path, "a", kind, compact)
    stems = stems_in(tmp_path)
    assert stems == {"a": f".{kind.lower()}"}
    found = load(tmp_path, "a", stems["a"], spec)
    assert found.masks.shape == (ROWS, 1 if compact else 4, SIDE, SIDE)
    for mine, theirs in zip(found.raw(), outputs.raw(), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=5e-7 if kind == "TXT" else 0)


def test_text_is_written_as_ais_infer_writes_it(tmp_path: Path) -> None:
    """A line for each row of the last axis, six decimals, and a blank after each number."""
    outputs = Outputs(
        np.array([[1, 2.5, 30, 40, 0.9]], np.float32),
        np.array([79], np.int32),
        np.array([[[[0.25, 1], [0, 1e-8]]]], np.float32),
        1,
    )
    paths = save(outputs, tmp_path, "a", "TXT")
    assert [path.read_text() for path in paths] == [
        "1.000000 2.500000 30.000000 40.000000 0.900000 \n",
        "79 \n",
        "0.250000 1.000000 \n0.000000 0.000000 \n",
    ]


def test_rows_are_put_best_first_with_the_masks_of_their_labels() -> None:
    outputs = filled()
    raw = outputs.raw()
    assert raw.labels[0, :3].tolist() == [3, 0, 79]
    np.testing.assert_allclose(raw.scores[0, :4], [0.9, 0.6, 0.2, 0])
    np.testing.assert_array_equal(raw.masks[0, 1], outputs.masks[2, 0])
    np.testing.assert_array_equal(raw.masks[0, 2], outputs.masks[1, 79])
    assert not raw.masks[0, 3:].any()


def test_masks_of_the_labels_alone_lie_in_their_classes_among_zeros_that_take_no_disk(tmp_path: Path) -> None:
    outputs = filled().compact()
    path = save(outputs, tmp_path, "a")[2]
    masks = np.fromfile(path, np.float32).reshape(ROWS, CLASSES, SIDE, SIDE)
    np.testing.assert_array_equal(masks[1, 79], outputs.masks[1, 0])
    masks[np.arange(ROWS), outputs.labels] = 0
    assert not masks.any()
    assert path.stat().st_blocks * 512 < 2_000_000


def test_int64_labels_of_a_graph_that_was_not_changed_are_read(tmp_path: Path) -> None:
    save(filled(), tmp_path, "a", compact=True)
    filled().labels.astype(np.int64).tofile(tmp_path / "a_1.bin")
    assert load(tmp_path, "a", ".bin", SPEC).labels.tolist() == filled().labels.tolist()


@pytest.mark.parametrize(
    ("number", "size", "message"),
    [
        (0, 1996, "holds 499 numbers"),
        (1, 396, "holds 396 bytes"),
        (2, 4000, "1000 numbers"),
        (2, 3, "3 bytes"),
    ],
)
def test_a_file_of_another_size_is_named(tmp_path: Path, number: int, size: int, message: str) -> None:
    save(filled(), tmp_path, "a", compact=True)
    (tmp_path / f"a_{number}.bin").write_bytes(bytes(size))
    with pytest.raises(UserError, match=rf"a_{number}\.bin: .*{message}"):
        load(tmp_path, "a", ".bin", SPEC)


def test_numbers_that_are_no_detections_are_named(tmp_path: Path) -> None:
    save(filled(), tmp_path, "a", compact=True)
    labels = filled().labels
    labels[1] = 80
    labels.tofile(tmp_path / "a_1.bin")
    with pytest.raises(UserError, match=r"a_1\.bin: holds the label 80 where the model has 0 to 79"):
        load(tmp_path, "a", ".bin", SPEC)
    labels[1], labels[50] = 3, 80  # of a row without a score
    labels.tofile(tmp_path / "a_1.bin")
    assert load(tmp_path, "a", ".bin", SPEC).raw().labels[0, 50] == 0
    np.full((ROWS, 5), np.nan, np.float32).tofile(tmp_path / "a_0.bin")
    with pytest.raises(UserError, match=r"a_0\.bin: holds numbers that are not finite"):
        load(tmp_path, "a", ".bin", SPEC)


def test_a_missing_file_of_the_three_is_named(tmp_path: Path) -> None:
    save(filled(), tmp_path, "a", compact=True)
    (tmp_path / "a_2.bin").unlink()
    with pytest.raises(UserError, match=r"a_2\.bin: cannot be read"):
        load(tmp_path, "a", ".bin", SPEC)


def test_a_graph_of_theirs_is_fed_the_bins_as_they_are(bins: Path, tmp_path: Path) -> None:
    predictor = their_model()
    ran(predictor, bins, tmp_path / "out")
    session: Any = predictor.backend.session  # type: ignore[attr-defined]
    first = np.fromfile(bins / f"{STEMS[0]}.bin", np.float32).reshape(3, *WINDOW)
    # The first run warms up.
    np.testing.assert_array_equal(session.seen[0], first)
    np.testing.assert_array_equal(session.seen[1], first)
    assert len(session.seen) == 4
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        f"{stem}_{number}.bin" for stem in STEMS for number in range(3)
    ]


def test_predict_feeds_a_graph_of_theirs_what_the_bins_hold(bins: Path, tmp_path: Path) -> None:
    """Zeros around the image, exactly."""
    predictor = their_model()
    predictor([file.read() for file in find_images([tmp_path / "val"])])
    session: Any = predictor.backend.session  # type: ignore[attr-defined]
    for planes, stem in zip(session.seen, STEMS, strict=True):
        np.testing.assert_array_equal(
            planes, np.fromfile(bins / f"{stem}.bin", np.float32).reshape(3, *WINDOW)
        )
    outside = session.seen[STEMS.index("000000000285")][:, :, :32]
    assert not outside.any()


def test_bytes_are_normalised_for_a_graph_of_theirs(bins: Path, tmp_path: Path) -> None:
    small = tmp_path / "bytes"
    list(write_bins(find_images([tmp_path / "val"]), small, Bins(SPEC, "uint8")))
    predictor = their_model()
    ran(predictor, small, None)
    session: Any = predictor.backend.session  # type: ignore[attr-defined]
    for planes, stem in zip(session.seen[1:], STEMS, strict=True):
        stored = np.fromfile(bins / f"{stem}.bin", np.float32).reshape(3, *WINDOW)
        inside = stored != 0
        np.testing.assert_allclose(planes[inside], stored[inside], atol=1e-6)
        # Around the image a byte is half a level from the mean colour.
        np.testing.assert_allclose(planes[~inside], 0, atol=0.01)


@pytest.mark.parametrize(
    ("dtype", "colour"), [("float32", [123.675, 116.28, 103.53]), ("uint8", [124, 116, 104])]
)
def test_any_other_model_is_fed_the_image_that_the_bin_was_made_of(
    tmp_path: Path, dtype: Any, colour: list[float]
) -> None:
    images = photographs(tmp_path / "val")
    list(write_bins(find_images([images]), tmp_path / "bins", Bins(SPEC, dtype)))
    described = bins_of(our_model(), tmp_path / "bins", None)
    engine = runs_of(our_model(), described)
    stored = read_bin(tmp_path / "bins" / "000000000285.bin", described)
    image, size = engine.given([stored])
    assert size.tolist() == [[128, 192]]
    # 64 x 64 is doubled, and the mean colour is around it.
    np.testing.assert_allclose(image[0, :, 0, 0], colour, atol=1e-4)
    np.testing.assert_allclose(image[0, :, 1, 33], 60, atol=3)
    np.testing.assert_allclose(image[0, :, 64, 60], 255, atol=3)


def test_a_model_that_takes_bytes_gets_whole_numbers(bins: Path) -> None:
    predictor = our_model(exported=Exported(image="uint8", height=128, width=192))
    described = bins_of(predictor, bins, None)
    image, _ = runs_of(predictor, described).given([read_bin(bins / f"{STEMS[0]}.bin", described)])
    assert image.dtype == np.uint8
    assert image[0, :, 0, 0].tolist() == [124, 116, 104]


def test_channels_in_another_order_are_turned(bins: Path) -> None:
    other = replace(SPEC, preprocess=replace(SPEC.preprocess, channels="bgr"), exported=None)
    described = bins_of(our_model(other), bins, None)
    stored = read_bin(bins / f"{STEMS[0]}.bin", described)
    rgb, _ = runs_of(our_model(), described).given([stored])
    bgr, _ = runs_of(our_model(other), described).given([stored])
    np.testing.assert_array_equal(bgr[:, ::-1], rgb)


def test_images_go_together_and_the_last_run_has_what_is_left(bins: Path, tmp_path: Path) -> None:
    predictor = our_model()
    summary = ran(predictor, bins, tmp_path / "out", Manner(batch=2, loop=3))
    sizes = [len(each) for each in predictor.backend.sizes]  # type: ignore[attr-defined]
    assert sizes == [2] * 4 + [1] * 3
    assert len(summary.compute) == 6
    assert [len(read) for read, _ in summary.files] == [2, 1]
    assert len(list((tmp_path / "out").iterdir())) == 9


def test_both_kinds_of_model_leave_the_same_files(bins: Path, tmp_path: Path) -> None:
    ran(their_model(), bins, tmp_path / "theirs", Manner(compact=True))
    ran(our_model(), bins, tmp_path / "ours", Manner(compact=True))
    for path in (tmp_path / "theirs").iterdir():
        if path.name.endswith(("_0.bin", "_1.bin")):
            assert path.read_bytes() == (tmp_path / "ours" / path.name).read_bytes()
    masks = np.fromfile(tmp_path / "theirs" / f"{STEMS[0]}_2.bin", np.float32).reshape(ROWS, SIDE, SIDE)
    assert masks[0].min() == 1


def test_without_bins_the_engine_is_timed_on_zeros() -> None:
    predictor = their_model()
    described = bins_of(predictor, None, None)
    summary = run_alone(runs_of(predictor, described), described, Manner(loop=20))
    session: Any = predictor.backend.session  # type: ignore[attr-defined]
    assert len(session.seen) == 21
    assert not any(planes.any() for planes in session.seen)
    assert (len(summary.compute), summary.files) == (20, ())


def test_times_are_told_as_ais_infer_tells_them() -> None:
    summary = Summary([1.0, 2.0, 3.0, 10.0], [0.5], [0.25], batch=2)
    assert summary.lines() == [
        "-----------------Performance Summary------------------",
        "H2D_latency (ms): min = 0.5, max = 0.5, mean = 0.5, median = 0.5, percentile(99%) = 0.5",
        "NPU_compute_time (ms): min = 1.0, max = 10.0, mean = 4.0, median = 2.5, percentile(99%) = 9.79",
        "D2H_latency (ms): min = 0.25, max = 0.25, mean = 0.25, median = 0.25, percentile(99%) = 0.25",
        "throughput (1000*batchsize/NPU_compute_time): 500.0",
        "------------------------------------------------------",
    ]


def test_the_summary_has_their_keys_and_says_how_to_read_the_results(tmp_path: Path) -> None:
    summary = Summary([1.0], [0.5], [0.25], 1, [(["a.bin"], ["a_0.bin", "a_1.bin", "a_2.bin"])])
    write_summary(summary, tmp_path, {"loop": 1}, Bins(SPEC))
    values = json.loads((tmp_path / "sumary.json").read_text())
    assert values["filesinfo"] == {"0": {"infiles": ["a.bin"], "outfiles": ["a_0.bin", "a_1.bin", "a_2.bin"]}}
    assert values["NPU_compute_time"] == {
        "min": 1,
        "max": 1,
        "mean": 1,
        "median": 1,
        "percentile(99%)": 1,
        "count": 1,
    }
    assert (values["throughput"], values["args"]) == (1000, {"loop": 1})
    assert described_results(tmp_path) == Bins(SPEC)


def test_a_summary_of_ais_infer_says_nothing_of_the_model(tmp_path: Path) -> None:
    assert described_results(tmp_path) is None
    (tmp_path / "sumary.json").write_text('{"filesinfo": {}, "throughput": 11.3}')
    assert described_results(tmp_path) is None


def test_a_bin_of_another_size_is_named(bins: Path) -> None:
    (bins / f"{STEMS[0]}.bin").write_bytes(bytes(100))
    with pytest.raises(UserError, match=r"139\.bin: is 100 bytes, and 3 x 128 x 192 numbers are 294912"):
        ran(their_model(), bins, None)


def test_bins_of_another_size_than_the_model_are_refused(bins: Path) -> None:
    with pytest.raises(UserError, match="its bins are 128 x 192, and 256 x 256 are asked for"):
        bins_of(their_model((256, 256)), bins, None)


def test_bins_of_their_own_script_are_run_without_any_description(bins: Path, tmp_path: Path) -> None:
    (tmp_path / "bins.json").unlink()
    described = bins_of(their_model(), bins, None)
    assert described.spec.preprocess.resize == "letterbox"
    ran(their_model(), bins, tmp_path / "out", Manner(compact=True))
    found = load(tmp_path / "out", STEMS[0], ".bin", SPEC)
    assert found.labels[0] == LABEL


def test_a_model_of_any_size_without_a_description_needs_one(bins: Path, tmp_path: Path) -> None:
    (tmp_path / "bins.json").unlink()
    any_size = our_model(replace(SPEC, exported=None))
    with pytest.raises(UserError, match="nothing says which the bins have"):
        bins_of(any_size, bins, None)
    assert bins_of(any_size, bins, WINDOW).size == WINDOW


def test_numpy_files_are_inputs_too(bins: Path, tmp_path: Path) -> None:
    planes = np.fromfile(bins / f"{STEMS[0]}.bin", np.float32).reshape(1, 3, *WINDOW)
    np.save(tmp_path / "one.npy", planes)
    stored = read_bin(tmp_path / "one.npy", Bins(SPEC))
    np.testing.assert_array_equal(stored.planes, planes[0])


def test_a_folder_without_bins_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no \.bin"):
        files_in(tmp_path)
    with pytest.raises(UserError, match="cannot be read"):
        files_in(tmp_path / "none")
