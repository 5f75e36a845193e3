"""The figures of `maskrcnn bench`, of hand-made runs."""

import json
from dataclasses import replace

import pytest

from maskrcnn.bench.machine import Machine
from maskrcnn.bench.timing import Failure, Measured, Opened, Report, Round, Run, Setting, labels, percentile

OPENED = Opened(2.0, 0.5, 1.0, 0.25, {"numpy": "2.0"})
MACHINE = Machine("Z80", 2, 0.1, "CP/M", "3.13.0")


def rounds(*times: float, cpu: float = 1.0, runs: int = 1) -> tuple[Round, ...]:
    """One round for each time in seconds, of equal runs."""
    run = tuple(Run({"network": 1000 * each / runs}, {"network": 1000 * cpu / runs}) for each in times)
    return tuple(
        Round(seconds, cpu, (each,) * runs, 3 * runs) for seconds, each in zip(times, run, strict=True)
    )


def measured(*times: float, cpu: float = 1.0, runs: int = 1, **setting: object) -> Measured:
    return Measured(Setting("model.onnx", **setting), OPENED, rounds(*times, cpu=cpu, runs=runs))  # type: ignore[arg-type]


def test_a_percentile_between_two_values_is_in_proportion() -> None:
    assert [percentile([10, 20, 30, 40, 50], share) for share in (0, 0.5, 0.9, 1)] == [10, 30, 46, 50]
    assert percentile([7], 0.99) == 7


def test_latencies_are_of_the_runs_of_all_rounds() -> None:
    found = measured(0.03, 0.01, 0.02).latency()
    assert (found.min, found.p50, found.mean) == pytest.approx((10, 20, 20))
    assert found.p90 == pytest.approx(28)


def test_images_a_second_count_every_image_of_a_batch() -> None:
    assert measured(2.0, 2.0, runs=4, batch=3).fps == 6


def test_images_a_second_of_runs_side_by_side_are_by_the_time_of_the_round() -> None:
    run = Run({"network": 1000.0}, {})
    assert Measured(Setting("a", streams=2), OPENED, (Round(1.0, 1.5, (run, run)),)).fps == 2


def test_cpu_time_is_an_images_in_the_round_that_took_least() -> None:
    slow, fast = rounds(1.0, cpu=4.0, runs=2)[0], rounds(1.0, cpu=2.0, runs=2)[0]
    assert Measured(Setting("a", batch=4), OPENED, (slow, fast)).cpu_ms() == 250


def test_detections_are_counted_an_image() -> None:
    assert measured(1.0, 1.0, runs=2, batch=2).detections == 1.5


def test_speed_is_the_median_over_rounds_with_the_slowest_and_the_fastest() -> None:
    first = measured(1.0, 2.0, 9.0, cpu=3.0)
    found = measured(0.5, 0.5, 0.5, cpu=1.5).speed(first)
    assert (found.low, found.median, found.high, found.cpu) == (2, 4, 18, 2)


def test_speed_compares_images_and_not_runs() -> None:
    assert measured(2.0, batch=4).speed(measured(1.0)).median == 2


def test_a_stage_has_its_median_and_its_share_of_the_whole() -> None:
    runs = tuple(
        Run({"decode": wall, "network": 30.0}, {"decode": wall / 2, "network": 30.0}) for wall in (9, 10, 11)
    )
    decode, network = Measured(Setting("a"), OPENED, (Round(0.12, 0.1, runs),)).stages()
    assert (decode.name, decode.wall, decode.cpu, decode.share) == ("decode", 10, 5, 0.25)
    assert network.share == 0.75


def test_parts_of_the_network_follow_it_without_a_share() -> None:
    part = Run({"network.features": 8.0}, {"network.features": 6.0})
    found = replace(measured(0.01), parts=(part, part)).stages()
    assert [(stage.name, stage.share) for stage in found] == [("network", 1.0), ("network.features", None)]
    assert (found[1].wall, found[1].cpu) == (8, 6)


def test_of_runs_side_by_side_no_stage_has_a_cpu_time() -> None:
    round = Round(0.01, 0.01, (Run({"network": 10.0}, {}),))
    assert Measured(Setting("a", streams=2), OPENED, (round,)).stages()[0].cpu is None


def test_a_label_has_what_differs_and_nothing_else() -> None:
    settings = [
        Setting("a", threads=2, streams=1),
        Setting("a", threads=2, streams=2),
        Setting("b", threads=2),
    ]
    assert labels(settings) == ["a, streams 1", "a, streams 2", "b, streams 1"]
    assert labels(settings[:1]) == ["a"]


def test_a_report_is_plain_json() -> None:
    failed = Failure(Setting("b.xml"), "b.xml: no such model file", "check the path")
    report = Report(MACHINE, (), ((480, 640),), 2, 3, (measured(0.5, 0.5),), (failed,))
    values = json.loads(json.dumps(report.to_json()))
    (model,) = values["models"]
    assert (model["model"], model["fps"], model["latency_ms"]["p50"], model["memory"]) == (
        "model.onnx",
        2,
        500,
        None,
    )
    assert (model["speed"]["median"], model["startup_s"]["opening"], model["runs_ms"]) == (
        1,
        1,
        [[500], [500]],
    )
    assert values["machine"]["cpu"] == "Z80"
    assert values["failed"][0]["message"] == "b.xml: no such model file"
