"""The correction from the share of objects in training to the share at inference."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from maskrcnn.data.augment import Augment
from maskrcnn.data.batches import BatchMaker
from maskrcnn.data.dataset import Dataset
from maskrcnn.model.mask_rcnn import MaskRCNN
from maskrcnn.spec import Spec
from maskrcnn.training.finish import frozen, write_trained
from maskrcnn.training.initial import initialise
from maskrcnn.training.prior import correct_prior, count_shares, log_odds_ratio
from maskrcnn.weights.model_file import read_model_file


def test_one_object_in_16_after_training_on_one_in_4_takes_odds_by_a_fifth() -> None:
    assert math.isclose(log_odds_ratio(np.array([10, 150]), np.array([20, 60])), math.log(5))


def test_without_objects_nothing_is_corrected() -> None:
    assert log_odds_ratio(np.array([0, 150]), np.array([0, 60])) == 0


def test_only_the_background_bias_of_the_file_changes_and_by_what_was_counted(
    shapes: Dataset, spec: Spec, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model = MaskRCNN(spec.model)
    initialise(model)
    path = write_trained(tmp_path / "model.safetensors", spec, model.state_dict())
    before = read_model_file(path)[1]
    shift = correct_prior(path, shapes, images=6)
    after_spec, after = read_model_file(path)
    changed = [name for name in before if not np.array_equal(before[name], after[name])]
    assert changed == ["box_head.scores.bias"]
    difference = after["box_head.scores.bias"] - before["box_head.scores.bias"]
    np.testing.assert_allclose(difference, [0, 0, shift], atol=1e-6)
    again = MaskRCNN(frozen(spec.model)).eval()
    again.load_state_dict({name: torch.from_numpy(values) for name, values in before.items()})
    maker = BatchMaker(shapes, after_spec.preprocess, Augment(flip=0), batch=1)
    met, trained = count_shares(again, maker, 6)
    # The 12 rectangles themselves are sampled besides the proposals.
    assert trained[0] >= 12 and trained.sum() <= 6 * spec.model.box_head.batch
    assert met.sum() <= 6 * spec.model.rpn.post_nms
    assert shift == log_odds_ratio(met, trained)
    assert after_spec == replace(spec, model=frozen(spec.model))
