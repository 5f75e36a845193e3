"""Scores for the proposals of inference, of which fewer show objects than of those sampled in training."""

import math
from pathlib import Path

import numpy as np
import torch

from maskrcnn.data.augment import Augment
from maskrcnn.data.batches import BatchMaker
from maskrcnn.data.dataset import Dataset
from maskrcnn.model.mask_rcnn import MaskRCNN
from maskrcnn.model.matching import BACKGROUND, Targets, match, overlap, sample_proposals, without_crowd
from maskrcnn.training.update import to_targets
from maskrcnn.weights.model_file import read_model_file, write_model_file


def correct_prior(path: Path, dataset: Dataset, images: int) -> float:
    """Correct the background's bias in a model file by what training images tell; -> what was added.

    Training samples objects up to `positive_fraction`, and softmax learns scores for that share. Its odds
    times the ratio of both shares' odds are right at inference (Saerens et al. 2002).
    """
    spec, state = read_model_file(path)
    model = MaskRCNN(spec.model).eval()
    model.load_state_dict({name: torch.from_numpy(values) for name, values in state.items()})
    maker = BatchMaker(dataset, spec.preprocess, Augment(flip=0), batch=1)
    shift = log_odds_ratio(*count_shares(model, maker, images))
    bias = state["box_head.scores.bias"].copy()
    bias[-1] += shift
    write_model_file(path, spec, state | {"box_head.scores.bias": bias})
    return shift


@torch.inference_mode()
def count_shares(model: MaskRCNN, maker: BatchMaker, images: int) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of (objects, background) among the proposals of inference, and among those of training."""
    met, trained = np.zeros(2), np.zeros(2)
    generator = torch.Generator().manual_seed(0)
    for step in range(images):
        batch = maker(step)
        image, size = torch.from_numpy(batch.image).float(), torch.from_numpy(batch.size)
        (target,) = targets = to_targets(batch, torch.device("cpu"))
        levels = model.features(image, size)
        proposals, real = model.propose(levels, size, (image.shape[2], image.shape[3]))
        sampled = sample_proposals(
            proposals, real, targets, model.config.classes, model.config.box_head, [generator]
        )
        trained += (int(sampled.positive.sum()), int((sampled.used & ~sampled.positive).sum()))
        met += _objects_and_background(proposals[0][real[0]], target, model.config.box_head.foreground_iou)
    return met, trained


def log_odds_ratio(met: np.ndarray, trained: np.ndarray) -> float:
    """(objects, background) met and trained on -> what the background's logit lacks; 0 without objects."""
    if not (met.all() and trained.all()):
        return 0.0
    return math.log((met[1] / met[0]) / (trained[1] / trained[0]))


def _objects_and_background(proposals: torch.Tensor, target: Targets, iou: float) -> tuple[int, int]:
    matched = match(overlap(target.instances().boxes, proposals), iou, iou, keep_best=False)
    matched = without_crowd(matched, target.boxes[target.crowd], proposals)
    return int((matched >= 0).sum()), int((matched == BACKGROUND).sum())
