"""Images as `.bin` files: the numbers, the names, the lists beside them, and what interrupted runs leave."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from bright_boxes import SCENES, WINDOW, by_hand, photographs

from maskrcnn.backends.contracts.ascend import mmdetection_spec
from maskrcnn.compat.ascend.aipp import aipp_config
from maskrcnn.compat.ascend.bins import Bins, Listed, bins_for, info_lines, read_bins, read_info, stems_for
from maskrcnn.compat.ascend.listing import write_info
from maskrcnn.compat.ascend.write import Wrote, in_their_order, planes_of, write_bins
from maskrcnn.errors import UserError
from maskrcnn.host.normalise import normalised
from maskrcnn.images import find_images
from maskrcnn.preprocess import batch, prepare
from maskrcnn.stream import Unreadable

THEIRS = Bins(mmdetection_spec(WINDOW))


def written(images: Path, folder: Path, bins: Bins = THEIRS, exact: bool = False) -> list[Wrote | Unreadable]:
    return list(write_bins(find_images([images]), folder, bins, workers=2, exact=exact))


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("size", [(480, 640), (640, 427), (30, 50), (333, 500), (1300, 200)])
def test_a_bin_holds_what_their_script_computes(size: tuple[int, int]) -> None:
    """Their factor is 1 / std, ours a division: one unit in the last place."""
    image = noise(*size)
    found = planes_of(np.ascontiguousarray(image[..., ::-1]), THEIRS)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, by_hand(image, WINDOW), atol=1e-6)


def test_a_bin_of_their_size_has_their_number_of_bytes() -> None:
    assert Bins().size == (1216, 1216)
    assert Bins().nbytes == 17_743_872
    assert planes_of(noise(8, 8), Bins()).nbytes == 17_743_872


def test_around_the_image_are_zeros_or_what_the_model_was_made_with() -> None:
    image = noise(64, 64)  # 128 x 128 in the middle, 32 columns on either side
    zeros = planes_of(image, THEIRS)
    assert not zeros[:, :, :32].any()
    assert not zeros[:, :, 160:].any()
    assert zeros[:, :, 32:160].any()
    spec = mmdetection_spec(WINDOW)
    grey = planes_of(image, Bins(replace(spec, preprocess=replace(spec.preprocess, pad_value=114))))
    np.testing.assert_allclose(
        grey[:, 0, 0], (114 - np.array([123.675, 116.28, 103.53])) / [58.395, 57.12, 57.375], rtol=1e-5
    )
    np.testing.assert_array_equal(grey[:, :, 32:160], zeros[:, :, 32:160])


def test_bytes_are_the_same_image_before_it_is_normalised() -> None:
    image = noise(64, 64)
    found = planes_of(image, Bins(mmdetection_spec(WINDOW), "uint8"))
    assert (found.dtype, found.shape) == (np.uint8, (*WINDOW, 3))
    normal = (found[:, 32:160] - np.array([123.675, 116.28, 103.53])) / np.array([58.395, 57.12, 57.375])
    np.testing.assert_allclose(normal.transpose(2, 0, 1), planes_of(image, THEIRS)[:, :, 32:160], atol=1e-6)
    # The bytes nearest to the mean colour, half a level from it.
    assert found[0, 0].tolist() == [124, 116, 104]


@pytest.mark.parametrize("fill", [(124, 116, 104), (103.53, 116.28, 123.675)])
def test_bytes_of_a_network_that_takes_bgr_are_rgb(fill: tuple[float, float, float]) -> None:
    spec = mmdetection_spec(WINDOW)
    bgr = replace(spec.preprocess, channels="bgr", pad_value=fill)
    found = planes_of(noise(64, 64), Bins(replace(spec, preprocess=bgr), "uint8"))
    np.testing.assert_array_equal(found[:, 32:160], planes_of(noise(64, 64), Bins(spec, "uint8"))[:, 32:160])
    assert found[0, 0].tolist() == [round(value) for value in fill[::-1]]


@pytest.mark.parametrize("channels", ["rgb", "bgr"])
def test_a_bin_is_what_predict_feeds_the_network(channels: Any) -> None:
    spec = mmdetection_spec(WINDOW)
    spec = replace(spec, preprocess=replace(spec.preprocess, channels=channels))
    planes, _ = prepare(noise(61, 40), spec.preprocess)
    fed = normalised(*batch([planes], spec.preprocess), spec.model)[0]
    np.testing.assert_array_equal(planes_of(noise(61, 40), Bins(spec)), fed)


@pytest.mark.parametrize("channels", ["rgb", "bgr"])
def test_what_aipp_makes_of_bytes_is_the_normalised_image(channels: Any) -> None:
    """Ascend's guide: red and blue change places, then (pixel - mean_chn - min_chn) * var_reci_chn."""
    spec = mmdetection_spec(WINDOW)
    spec = replace(spec, preprocess=replace(spec.preprocess, channels=channels))
    text = aipp_config(spec)
    assert text.startswith("aipp_op {\n    aipp_mode: static\n")
    said = dict(line.strip().split(": ") for line in text.splitlines()[1:-1])
    assert (said["input_format"], said["crop"], said["csc_switch"]) == ("RGB888_U8", "false", "false")
    assert (said["src_image_size_h"], said["src_image_size_w"]) == ("128", "192")
    pixels = planes_of(noise(64, 64), Bins(spec, "uint8")).astype(np.float64)
    if said["rbuv_swap_switch"] == "true":
        pixels = pixels[..., ::-1]
    means = [float(said[f"mean_chn_{k}"]) + float(said[f"min_chn_{k}"]) for k in range(3)]
    factors = [float(said[f"var_reci_chn_{k}"]) for k in range(3)]
    found = ((pixels - means) * factors).transpose(2, 0, 1)
    wanted = planes_of(noise(64, 64), Bins(spec))
    np.testing.assert_allclose(found[:, :, 32:160], wanted[:, :, 32:160], atol=1e-6)
    np.testing.assert_allclose(found, wanted, atol=0.01)


def test_every_image_becomes_a_file_of_its_own_name_and_a_line(tmp_path: Path) -> None:
    outcomes = written(photographs(tmp_path / "val"), tmp_path / "bins")
    assert [outcome.listed.stem for outcome in outcomes if isinstance(outcome, Wrote)] == sorted(
        name.partition(".")[0] for name in SCENES
    )
    found = {path.name: path.stat().st_size for path in (tmp_path / "bins").iterdir()}
    assert found == {f"{name.partition('.')[0]}.bin": 3 * 128 * 192 * 4 for name in SCENES}
    assert (tmp_path / "bins.info").read_text().splitlines() == [
        f"0 {tmp_path}/val/000000000139.jpg 160 120",
        f"1 {tmp_path}/val/000000000285.jpg 64 64",
        f"2 {tmp_path}/val/000000100139.jpg 100 160",
    ]
    assert read_bins(tmp_path / "bins.json").images == read_info(tmp_path / "bins.info")


def test_names_with_dots_spaces_and_namesakes_have_stems_of_their_own(tmp_path: Path) -> None:
    """ais_infer cuts at the first dot: no stem has one."""
    for name in ("a.b.jpg", "a.c.jpg", "with space.jpg", "x/same.jpg", "y/same.jpg", "two.png", "two.jpg"):
        path = tmp_path / "val" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), noise(20, 30))
    written(tmp_path / "val", tmp_path / "bins")
    listed = read_bins(tmp_path / "bins.json").images
    stems = [image.stem for image in listed]
    assert stems == ["a_b", "a_c", "two_jpg", "two_png", "with space", "x_same", "y_same"]
    assert sorted(path.stem for path in (tmp_path / "bins").iterdir()) == stems
    by_path = {image.path: image.size for image in read_info(tmp_path / "bins.info")}
    assert by_path == {image.path: (20, 30) for image in listed}


def test_stems_that_become_the_same_are_numbered() -> None:
    assert stems_for(["a.b", "a_b", "A_B"]) == ["a_b", "a_b-2", "A_B-3"]


def test_what_is_whole_is_kept_and_what_is_not_is_written_again(tmp_path: Path) -> None:
    images, folder = photographs(tmp_path / "val"), tmp_path / "bins"
    written(images, folder)
    whole, torn = folder / "000000000139.bin", folder / "000000000285.bin"
    before, contents = whole.stat().st_mtime_ns, torn.read_bytes()
    torn.write_bytes(contents[:1000])
    (tmp_path / "bins.info").unlink()
    outcomes = [outcome for outcome in written(images, folder) if isinstance(outcome, Wrote)]
    assert [(outcome.listed.stem, outcome.kept) for outcome in outcomes] == [
        ("000000000139", True),
        ("000000000285", False),
        ("000000100139", True),
    ]
    assert whole.stat().st_mtime_ns == before
    assert torn.read_bytes() == contents
    assert len(read_info(tmp_path / "bins.info")) == 3


def test_bins_of_unknown_making_are_not_kept(tmp_path: Path) -> None:
    images, folder = photographs(tmp_path / "val"), tmp_path / "bins"
    folder.mkdir()
    (folder / "000000000139.bin").write_bytes(bytes(3 * 128 * 192 * 4))
    written(images, folder)
    assert any((folder / "000000000139.bin").read_bytes())


def test_another_size_or_type_does_not_mix_with_what_is_there(tmp_path: Path) -> None:
    images, folder = photographs(tmp_path / "val"), tmp_path / "bins"
    written(images, folder)
    for other in (Bins(mmdetection_spec((192, 128))), Bins(mmdetection_spec(WINDOW), "uint8")):
        with pytest.raises(UserError, match="bins of another model, size or type"):
            written(images, folder, other)


def test_a_damaged_image_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    images = photographs(tmp_path / "val")
    (images / "000000000285.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    outcomes = written(images, tmp_path / "bins")
    assert [type(outcome).__name__ for outcome in outcomes] == ["Wrote", "Unreadable", "Wrote"]
    assert sorted(path.name for path in (tmp_path / "bins").iterdir()) == [
        "000000000139.bin",
        "000000100139.bin",
    ]
    assert len(read_info(tmp_path / "bins.info")) == 2


def test_exact_names_end_at_the_first_dot_and_the_list_counts_by_suffix(tmp_path: Path) -> None:
    for name in ("b.x.jpg", "a.jpg", "c.JPG", "d.jpeg", "e.png"):
        path = tmp_path / "val" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(cv2.imencode(".jpg", noise(20, 30))[1].tobytes())
    files = in_their_order(find_images([tmp_path / "val"]))
    list(write_bins(files, tmp_path / "bins", THEIRS, exact=True))
    assert sorted(path.name for path in (tmp_path / "bins").iterdir()) == ["a.bin", "b.bin", "c.bin", "d.bin"]
    lines = (tmp_path / "bins.info").read_text().splitlines()
    assert [(line.split()[0], Path(line.split()[1]).name) for line in lines] == [
        ("0", "a.jpg"),
        ("1", "b.x.jpg"),
        ("0", "d.jpeg"),
        ("0", "c.JPG"),
    ]


def test_exact_names_that_collide_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    for name in ("a.1.jpg", "a.2.jpg"):
        path = tmp_path / "val" / name
        path.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(path), noise(20, 30))
    with pytest.raises(UserError, match=r"both would be a\.bin"):
        written(tmp_path / "val", tmp_path / "bins", exact=True)
    assert not (tmp_path / "bins").exists()


def test_a_path_with_spaces_is_read_back_from_its_line(tmp_path: Path) -> None:
    image = Listed("a photo", "some folder/a photo.jpg", (480, 640))
    (tmp_path / "x.info").write_text("".join(info_lines([image])))
    assert (tmp_path / "x.info").read_text() == "0 some folder/a photo.jpg 640 480\n"
    assert read_info(tmp_path / "x.info") == (image,)


@pytest.mark.parametrize("line", ["a b c d", "0 x.jpg 640", "0 x.jpg 640 0", "0 x.jpg 640 480 px"])
def test_a_line_that_is_none_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "x.info").write_text(f"0 a.jpg 640 480\n{line}\n")
    with pytest.raises(UserError, match="line 2 is"):
        read_info(tmp_path / "x.info")


def test_their_lists_of_images_and_of_bins(tmp_path: Path) -> None:
    images = photographs(tmp_path / "val")
    assert write_info("jpg", images, tmp_path / "jpg.info") == 3
    assert (tmp_path / "jpg.info").read_text().splitlines()[0] == f"0 {images}/000000000139.jpg 160 120"
    written(images, tmp_path / "bins")
    assert write_info("bin", tmp_path / "bins", tmp_path / "bin.info", (1216, 800)) == 3
    assert (tmp_path / "bin.info").read_text().splitlines()[0] == (
        f"0 {tmp_path}/bins/000000000139.bin 800 1216"
    )


def test_a_description_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "bins.json").write_text(json.dumps({"spec": {}, "size": 3}))
    with pytest.raises(UserError, match="size"):
        read_bins(tmp_path / "bins.json")


def test_a_model_of_any_size_needs_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="takes images of any size"):
        bins_for("example", None, centred=False)
    found = bins_for("example", (320, 352), centred=False)
    assert (found.size, found.spec.preprocess.resize) == ((320, 352), "fit_window")
    assert found.size_net((480, 640)) == (264, 352)
    centred = bins_for("example", (320, 352), centred=True)
    assert centred.spec.preprocess.resize == "letterbox"
    assert centred.spec.preprocess.pad_value == centred.spec.model.mean
    assert centred.size_net((480, 640)) == (320, 352)


def test_a_name_that_is_no_text_goes_through_the_lists(tmp_path: Path) -> None:
    name = b"caf\xe9.jpg".decode("utf-8", "surrogateescape")
    (tmp_path / "val").mkdir()
    (tmp_path / "val" / name).write_bytes(cv2.imencode(".jpg", noise(20, 30))[1].tobytes())
    written(tmp_path / "val", tmp_path / "bins")
    (listed,) = read_bins(tmp_path / "bins.json").images
    assert listed.path == str(tmp_path / "val" / name)
    assert read_info(tmp_path / "bins.info")[0].path == listed.path


def test_the_lists_of_the_working_folder_lie_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = photographs(tmp_path / "val")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    written(images, Path())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here", "here.info", "here.json", "val"]


def test_bytes_are_refused_where_the_model_sees_fractions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = mmdetection_spec(WINDOW)
    other = replace(spec, preprocess=replace(spec.preprocess, filter="torch"))
    (tmp_path / "m.onnx").touch()
    monkeypatch.setattr("maskrcnn.stored_spec.found_spec", lambda _: other)
    with pytest.raises(UserError, match="fractions of a byte"):
        bins_for(str(tmp_path / "m.onnx"), None, centred=False, dtype="uint8")
