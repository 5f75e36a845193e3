"""What was published of real results lists is what we measure."""

import re
from pathlib import Path

import numpy as np
import pytest

from maskrcnn.evaluation.coco_metrics import evaluate
from maskrcnn.evaluation.ground_truth import read_ground_truth
from maskrcnn.evaluation.metrics import Metrics
from maskrcnn.evaluation.result_list import read_results

pytestmark = pytest.mark.data

TWELVE = ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"]


def measured(annotations: Path, results: Path) -> Metrics:
    truth = read_ground_truth(annotations)
    return evaluate(truth, read_results(results, truth))


@pytest.mark.parametrize(("kind", "precisely"), [("bbox", 0.504581), ("segm", 0.319545)])
def test_the_fake_results_of_the_coco_api_have_their_published_scores(
    data_dir: Path, kind: str, precisely: float
) -> None:
    folder = data_dir / "coco_fake100"
    published = (folder / "val2014_fake_eval_res.txt").read_text().split("type=")
    expected = next(re.findall(r"= (\d\.\d{3})$", part, re.M) for part in published if part.startswith(kind))
    metrics = measured(
        folder / "instances_val2014_100.json", folder / f"instances_val2014_fake{kind}100_results.json"
    )
    numbers = [metrics.numbers()[f"{kind}/{name}"] for name in TWELVE]
    assert [f"{number:.3f}" for number in numbers] == expected
    assert numbers[0] == pytest.approx(precisely, abs=5e-7)


@pytest.mark.parametrize(
    ("name", "box", "mask"),
    [
        ("d2go_fbnetv3a", (0.266, 0.400, None), (0.233, 0.385, None)),
        ("maskrcnn2go", (0.259, 0.424, 0.254), (0.228, 0.389, 0.228)),
    ],
)
def test_detections_of_mobile_networks_have_their_published_precision(
    data_dir: Path, name: str, box: tuple, mask: tuple
) -> None:
    metrics = measured(
        data_dir / "coco_val215" / "instances.json",
        data_dir / "baseline_detections" / f"{name}_coco_val215.json",
    )
    for kind, expected in (("bbox", box), ("segm", mask)):
        for number, value in zip(TWELVE, expected, strict=False):
            if value is not None:
                # Published with three digits; .2325038 as .233.
                assert metrics.numbers()[f"{kind}/{number}"] == pytest.approx(value, abs=0.0005001)
    assert np.trace(metrics.kinds[0].confusion) > 500
