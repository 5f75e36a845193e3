"""`maskrcnn bench`: what it prints of hand-made measurements, its gates, and what it refuses."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from commands import Run as Command
from PIL import Image

from maskrcnn.bench.machine import Machine
from maskrcnn.bench.timing import Failure, Layer, Measured, Opened, Report, Round, Run, Setting
from maskrcnn.cli.bench import divided, lines, number, table

IDLE = Machine("Z80", 2, 0.1, "CP/M", "3.13.0")
MODEL = Path(__file__).parents[2] / "src" / "maskrcnn" / "example.safetensors"


def measured(setting: Setting, milliseconds: float) -> Measured:
    """Two rounds of two runs."""
    network = {"network": 0.75 * milliseconds, "draw": 0.25 * milliseconds}
    runs = (Run(network, network),) * 2
    rounds = (Round(2 * milliseconds / 1000, 2 * milliseconds / 1000, runs, 6),) * 2
    parts = (Run({"network.features": 30.0}, {"network.features": 20.0}),)
    return Measured(setting, Opened(1.5, 1, 0.25, 0.5, {"numpy": "2.0"}), rounds, parts, 50_000_000)


def report(*milliseconds: float, failed: int = 0, **setting: object) -> Report:
    models = tuple(
        measured(Setting(f"m{place}.onnx", **setting), each)  # type: ignore[arg-type]
        for place, each in enumerate(milliseconds)
    )
    bad = Failure(Setting("bad.xml"), "bad.xml: is damaged", "copy it again")
    return Report(IDLE, (), ((320, 480),), 4, 3, models, (bad,) * failed)


@pytest.fixture
def measures(monkeypatch: pytest.MonkeyPatch) -> list[Report]:
    """What the next measurement finds, at the end; settings and files that were asked for come before it."""
    told: list[Report] = []
    monkeypatch.setattr("maskrcnn.bench.measure.measure", lambda *_: told[-1])
    return told


def spaced(row: str) -> str:
    return " ".join(row.split())


def test_the_report_of_two_models() -> None:
    rows = lines(report(100, 40))
    assert rows[0] == "machine   Z80, 2 cores, load 0.1, CP/M, Python 3.13.0"
    assert rows[2] == "input     a synthetic picture of 320 x 480 pixels"
    assert rows[3] == "measured  the network alone, 4 runs in 2 rounds in turn after 3 for warming up"
    assert spaced(rows[6]) == "m0.onnx 100 100 100 100 100 10 100 50 MB 2.0 s 3 1"
    assert spaced(rows[7]) == "m1.onnx 40 40 40 40 40 25 40 50 MB 2.0 s 3 2.5 (2.5 to 2.5), by CPU time 2.5"
    assert spaced(rows[10]) == "network 75 (75 CPU, 75.0 %) 30 (30 CPU, 75.0 %)"
    assert spaced(rows[11]) == "features 30 (20 CPU) 30 (20 CPU)"


def test_one_model_is_compared_with_none() -> None:
    rows = lines(report(100))
    assert "speed" not in rows[5]


def test_layers_are_listed_with_their_share() -> None:
    found = report(100)
    layers = (Layer("conv1", "Conv", 30.0, 2), Layer("relu", "Relu", 10.0, 1))
    rows = lines(replace(found, models=(replace(found.models[0], layers=layers),)))
    assert spaced(rows[-2]) == "30 75.0 % 2 conv1 Conv"


def test_numbers_have_three_digits() -> None:
    assert [number(value) for value in (0.01234, 1.234, 12.34, 99.96, 1234.5)] == [
        "0.0123",
        "1.23",
        "12.3",
        "100",
        "1234",
    ]


def test_numbers_stand_to_the_right_and_words_to_the_left() -> None:
    assert table([["a", "n"], ["word", "1"], ["b", "10"]]) == ["a      n", "word   1", "b     10"]


def test_the_first_word_is_a_model_and_later_ones_if_they_look_like_one() -> None:
    words = ["mine", "example", "zoo:detectron2/R50-FPN-3x", "b.ONNX", "c.parts", "d.pth", "photos", "*.jpg"]
    assert divided(words) == (words[:6], words[6:])


def test_bench_measures_every_model_with_every_setting(run: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def measure(settings: list[Setting], *others: object) -> Report:
        asked.extend([settings, *others[:4]])
        return report(100)

    monkeypatch.setattr("maskrcnn.bench.measure.measure", measure)
    done = run(
        "bench", "example", "b.onnx", "--batch", "1,4", "--streams", "2", "--threads", "1", "--loop", 9
    )
    assert done.code == 0
    assert asked == [
        [Setting(name, batch, 1, 2) for name in ("example", "b.onnx") for batch in (1, 4)],
        *([], 9, 3, False),
    ]


def test_json_has_every_figure(run: Command, measures: list[Report]) -> None:
    measures.append(report(100, 40))
    done = run("bench", "a.onnx", "--json")
    models = json.loads(done.out)["models"]
    assert [model["fps"] for model in models] == pytest.approx([10, 25])
    assert models[1]["speed"]["median"] == pytest.approx(2.5)
    assert done.code == 0


def test_a_plot_is_drawn(run: Command, measures: list[Report], tmp_path: Path) -> None:
    measures.append(report(100, 40))
    assert run("bench", "a.onnx", "--plot", tmp_path / "speed.png").code == 0
    with Image.open(tmp_path / "speed.png") as picture:
        assert picture.width == 1200


@pytest.mark.parametrize(
    ("limit", "code", "below"),
    [
        ("fps=10", 0, ""),
        ("fps=11", 1, "below: fps of m0.onnx is 10, less than 11\n"),
        ("speed=2.5", 0, ""),
        ("speed=2.6", 1, "below: speed of m1.onnx is 2.5, less than 2.6\n"),
    ],
)
def test_a_gate_ends_with_1_where_it_is_not_reached(
    run: Command, measures: list[Report], limit: str, code: int, below: str
) -> None:
    measures.append(replace(report(100, 40), images=("a.jpg",)))
    done = run("bench", "m0.onnx", "m1.onnx", "--at-least", limit)
    assert (done.code, done.err) == (code, below)


@pytest.mark.parametrize(("target", "code", "verdict"), [("7.3", 0, "pass!"), ("12", 1, "failed!")])
def test_metric_result_is_what_other_test_benches_look_for(
    run: Command, measures: list[Report], target: str, code: int, verdict: str
) -> None:
    measures.append(report(100))
    done = run("bench", "a.onnx", "--metric-result", "--at-least", f"fps={target}")
    assert done.out.splitlines()[-5:] == [
        "{'metricResult': {'FPS': 10.0}}",
        "",
        "FPS :  10.000",
        f"Performance Check : Test 10.000 >= target {target}",
        verdict,
    ]
    assert done.code == code


def test_a_busy_machine_and_a_missing_photograph_are_noted(run: Command, measures: list[Report]) -> None:
    measures.append(replace(report(100), machine=replace(IDLE, load=1.5)))
    done = run("bench", "a.onnx")
    assert "load 1.5 on 2 cores" in done.err
    assert "name photographs" in done.err


def test_one_of_two_models_that_fails_is_told_and_ends_with_1(run: Command, measures: list[Report]) -> None:
    measures.append(report(100, failed=1))
    done = run("bench", "a.onnx", "bad.xml")
    assert "m0.onnx" in done.out
    assert "error: bad.xml: is damaged\nhint: 1 of 2 models were left out\n" in done.err
    assert done.code == 1


def test_no_model_that_can_be_measured_ends_with_2(run: Command, measures: list[Report]) -> None:
    measures.append(report(failed=1))
    done = run("bench", "bad.xml")
    assert (done.code, done.out) == (2, "")
    assert done.err == "error: bad.xml: is damaged\nhint: copy it again\n"
    measures.append(report(failed=2))
    done = run("bench", "bad.xml", "bad.xml")
    assert (done.code, done.out) == (2, "")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["no.onnx"], "no.onnx: no such model file"),
        (["nothing"], "nothing: no such model file"),
        (["example", "missing.jpg"], "missing.jpg: no such file or folder"),
        (["example", "--batch", "0"], "--batch 0: is no number from 1 on"),
        (["example", "--threads", "two"], "--threads two: is no number"),
        (["example", "--at-least", "speed=2"], "--at-least speed: compares with a first model"),
        (["example", "--at-least", "ap=2"], "--at-least ap=2: there is no `ap`"),
        (["example", "--at-least", "fps"], "--at-least fps: is no KEY=VALUE"),
        (["example", "example", "--metric-result"], "--metric-result: it tells one model, and there are 2"),
        (["example", "--metric-result", "--json"], "--metric-result: --json prints one document"),
        (["example", "--plot", "a.svg"], "--plot a.svg: no picture is written as .svg"),
        (["example", "--layers", "--device", "cuda"], "on the CPU and not on cuda"),
    ],
)
def test_what_cannot_be_measured_is_refused(run: Command, words: list[str], message: str) -> None:
    done = run("bench", *words)
    assert (done.code, done.out) == (2, "")
    assert message in done.err
    assert "hint: " in done.err


def test_an_engine_that_tells_no_layers_is_refused_before_anything_is_measured(
    run: Command, tmp_path: Path
) -> None:
    (tmp_path / "a.engine").touch()
    done = run("bench", tmp_path / "a.engine", "--layers")
    assert done.code == 2
    assert "a.engine does not tell its layers" in done.err


def test_no_run_at_all_is_refused(run: Command) -> None:
    assert run("bench", "example", "--loop", "0").code == 2


def test_more_images_than_runs_are_said_to_be_left_out(
    run: Command, measures: list[Report], photographs: Path
) -> None:
    measures.append(report(100))
    done = run("bench", "a.onnx", photographs, "--loop", "2")
    assert "note: 2 of 3 images are used; --loop takes more" in done.err
