"""The picture of measured times."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskrcnn.bench.machine import Machine
from maskrcnn.bench.plot import COLOURS, check_plot_name, plot, write_plot
from maskrcnn.bench.timing import Measured, Opened, Report, Round, Run, Setting
from maskrcnn.errors import UserError

MACHINE = Machine("Z80", 2, 0.1, "CP/M", "3.13.0")


def measured(name: str, **wall: float) -> Measured:
    run = Run(wall, wall)
    return Measured(Setting(name), Opened(1, 0, 0, 0, {}), (Round(run.milliseconds / 1000, 1, (run,)),))


def report(*models: Measured) -> Report:
    return Report(MACHINE, (), ((480, 640),), 1, 0, models)


def pixels(picture: Image.Image, stage: str) -> int:
    return int((np.asarray(picture) == COLOURS[stage]).all(2).sum())


def test_bars_are_as_long_as_their_times() -> None:
    """Of the first model 30 ms of network and 10 of masks, of the second 20 of network."""
    picture = plot(report(measured("slow", network=30.0, masks=10.0), measured("fast", network=20.0)))
    assert pixels(picture, "network") == pytest.approx(5 * pixels(picture, "masks"), rel=0.25)
    half = picture.crop((0, picture.height // 2, picture.width, picture.height))
    assert pixels(half, "masks") == 0


def test_a_long_path_leaves_room_for_the_bar() -> None:
    picture = plot(report(measured(f"/{'folder/' * 60}model.onnx", network=30.0)))
    assert pixels(picture, "network") > 1000


@pytest.mark.parametrize(("suffix", "kind"), [(".png", "PNG"), (".JPG", "JPEG")])
def test_the_suffix_is_the_format(tmp_path: Path, suffix: str, kind: str) -> None:
    path = tmp_path / "new" / f"plot{suffix}"
    write_plot(report(measured("a", network=1.0)), path)
    with Image.open(path) as picture:
        assert picture.format == kind


def test_another_suffix_is_refused() -> None:
    with pytest.raises(UserError, match=r"plot\.svg: no picture is written as \.svg"):
        check_plot_name(Path("plot.svg"))
