"""Visualization of predictions: masks, boxes, label maps and class names on the image.

The visualizers of MMEngine's libraries are not used: that of mmdet blends the whole image once per
instance, which takes 15 s for 100 instances at 1024 x 682.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import cache
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.runner import Runner
from mmengine.structures import InstanceData

from swinv2_mm.datasets.palette import Colour, class_colour
from swinv2_mm.libraries import library_of

from .class_names import Classes, find_classes
from .prediction import Prediction
from .run_lengths import ReducedMasks
from .text_labels import Point, TextLabels

# Smaller images have no room for names; they are enlarged, but not to more than the longer side.
_SHORTER_SIDE_PX = 480
_LONGER_SIDE_PX = 2000
_MASK_OPACITY = 0.45
_LABEL_MAP_OPACITY = 0.55
# Line width is one pixel per so many of the shorter side.
_SIDE_PER_LINE_PX = 320
# Where the name of a segment goes is found on a map of this size; smaller segments get none.
_PLACING_PX = 256
_LEAST_SHARE = 0.002
# Fields of a data sample with predictions and with annotations.
_FIELDS = {
    'detection': ('pred_instances', 'gt_instances'),
    'segmentation': ('pred_sem_seg', 'gt_sem_seg'),
    'classification': ('pred_score', 'gt_label'),
}
# Pixels nearly as far from the edge of a segment as any; the middle one gets the name.
_DEEP = 0.9


def draw_prediction(prediction: Prediction, *, score_threshold: float = 0.3) -> np.ndarray:
    """Draw a prediction on its image.

    Args:
        prediction: Prediction of any task.
        score_threshold: Detections below it are left out.

    Returns:
        A visualization (H, W, 3), BGR. An image smaller than 480 pixels is enlarged by
        ``picture_scale``.
    """
    scale = picture_scale(prediction.image.shape[:2])
    if prediction.task == 'detection':
        return _draw_detections(prediction, scale=scale, score_threshold=score_threshold)
    if prediction.task == 'segmentation':
        return _draw_label_map(prediction, scale=scale)
    return _draw_best(prediction, scale=scale)


def draw_beside_truth(
    image: np.ndarray, sample: Any, *, task: str, classes: Classes, score_threshold: float = 0.3
) -> np.ndarray | None:
    """Draw ground truth, where a data sample has any, and prediction side by side.

    Args:
        image: (H, W, 3), BGR.
        sample: The library's data sample of a test step.
        task: Task of the model.
        classes: Names and colours.
        score_threshold: Detections below it are left out.

    Returns:
        A visualization (H', W', 3), BGR; ``None`` if the sample has no prediction of the task,
        such as that of a panoptic model or of a pre-training.
    """
    sample = sample.cpu()
    predicted, annotated = _FIELDS[task]
    if predicted not in sample:
        return None
    sides = [Prediction(None, image, sample, task, classes)]
    if annotated in sample and (truth := _truth(sample, task)) is not None:
        sides.insert(0, Prediction(None, image, truth, task, classes, is_truth=True))
    drawn = [draw_prediction(side, score_threshold=score_threshold) for side in sides]
    return np.hstack(drawn)


def drawing_of(runner: Runner, *, loader: str) -> Callable[[np.ndarray, Any], np.ndarray | None]:
    """Return a function that draws an image (RGB) and its data sample beside the ground truth.

    Args:
        runner: Runner of a training or test.
        loader: ``val`` or ``test``: whose data set names the classes.
    """
    task = library_of(runner.cfg, purpose='visualizations').task

    @cache
    def classes() -> Classes:
        # The data set, which knows the names of class folders, is built when the loop begins.
        meta = getattr(runner, f'{loader}_dataloader').dataset.metainfo
        return find_classes(runner.cfg, checkpoint_meta=meta, model=runner.model)

    def draw(image: np.ndarray, sample: Any) -> np.ndarray | None:
        return draw_beside_truth(image[..., ::-1], sample, task=task, classes=classes())

    return draw


def _truth(sample: Any, task: str) -> Any:
    """Return the annotations of a data sample in the places of its predictions."""
    if task == 'segmentation':
        return SimpleNamespace(pred_sem_seg=sample.gt_sem_seg)
    if task == 'classification':
        return SimpleNamespace(gt_label=sample.gt_label)
    given = sample.gt_instances
    boxes = given.bboxes
    found = {'bboxes': getattr(boxes, 'tensor', boxes), 'labels': given.labels}
    if 'masks' in given:
        found['masks'] = torch.from_numpy(given.masks.to_ndarray())
    return SimpleNamespace(pred_instances=InstanceData(scores=torch.ones(len(boxes)), **found))


def picture_scale(size: tuple[int, int]) -> float:
    """Return the factor by which an image of a size (height, width) is enlarged to be drawn on."""
    shorter, longer = sorted(size)
    return max(1.0, min(_SHORTER_SIDE_PX / shorter, _LONGER_SIDE_PX / longer))


def _draw_detections(prediction: Prediction, *, scale: float, score_threshold: float) -> np.ndarray:
    found = prediction.sample.pred_instances
    # In the order of drawing: the highest score on top. Masks are not copied into that order.
    order = found.scores.argsort(stable=True).tolist()
    order = [k for k in order if found.scores[k] >= score_threshold]
    labels = found.labels[order].tolist()
    tracks = found.track_ids[order].tolist() if 'track_ids' in found else [-1] * len(order)
    colours = [
        prediction.classes.colour(label) if track < 0 else class_colour(track)
        for label, track in zip(labels, tracks, strict=True)
    ]
    picture = _enlarged(prediction.image, scale)
    height, width = picture.shape[:2]
    line = max(1, round(min(height, width) / _SIDE_PER_LINE_PX))
    if 'masks' in found:
        parts = (_mask_part(found.masks, k) for k in order)
        picture = _blend_masks(picture, parts, colours, scale=scale, line=line)
    corners = np.nan_to_num(found.bboxes[order].numpy() * scale).reshape(-1, 4)
    corners = corners.clip(0, [width - 1, height - 1] * 2).round().astype(int)
    for (left, top, right, bottom), colour in zip(corners.tolist(), colours, strict=True):
        cv2.rectangle(picture, (left, top), (right, bottom), colour[::-1], line)
    text = TextLabels(picture)
    scores = found.scores[order].tolist()
    rows = zip(corners.tolist(), labels, scores, tracks, colours, strict=True)
    for corner, label, score, track, colour in reversed(list(rows)):
        name = prediction.classes.name(label)
        ending = '' if prediction.is_truth else f' {score:.2f}'
        if track >= 0:
            ending = f' #{track}{ending}'
        places = _places(corner, text.measure(name + ending))
        text.write(name, places, colour=colour, ending=ending)
    return text.picture()


def _places(corners: list[int], size: tuple[float, float]) -> Iterator[Point]:
    """Yield places for the name of a box: above, inside at its top, below, inside at its bottom."""
    (left, top, right, bottom), (width, height) = corners, size
    yield left, top - height
    yield left, top
    yield left, bottom
    yield right - width, bottom - height


def _mask_part(masks: Any, number: int) -> tuple[np.ndarray, int, int]:
    """Return what a mask holds (h, w), with its first column and row."""
    if isinstance(masks, ReducedMasks):
        return masks.part(number)
    mask = np.asarray(masks[number], bool).view(np.uint8)
    x, y, width, height = cv2.boundingRect(mask)
    return mask[y : y + height, x : x + width], x, y


def _blend_masks(
    picture: np.ndarray,
    parts: Iterable[tuple[np.ndarray, int, int]],
    colours: list[Colour],
    *,
    scale: float,
    line: int,
) -> np.ndarray:
    """Blend all masks at once, later ones over earlier ones, and outline each."""
    # Number of the object that each pixel belongs to, from 1.
    owners = np.zeros(picture.shape[:2], np.min_scalar_type(len(colours)))
    outlines = []
    for number, (part, x, y) in enumerate(parts, start=1):
        height, width = part.shape
        if not part.size:
            continue
        left, top, right, bottom = (round(scale * at) for at in (x, y, x + width, y + height))
        if scale != 1:
            size = right - left, bottom - top
            part = cv2.resize(255 * part, size, interpolation=cv2.INTER_LINEAR) >> 7
        np.copyto(owners[top:bottom, left:right], number, where=part.view(bool))
        contours, _ = cv2.findContours(
            part, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE, offset=(left, top)
        )
        outlines.append((contours, colours[number - 1]))
    tint = np.array([(0, 0, 0), *colours], np.uint8)[:, ::-1][owners]
    tint = np.where(owners[..., None] > 0, tint, picture)
    picture = cv2.addWeighted(picture, 1 - _MASK_OPACITY, tint, _MASK_OPACITY, 0)
    for contours, colour in outlines:
        cv2.drawContours(picture, contours, -1, colour[::-1], line)
    return picture


def _draw_label_map(prediction: Prediction, *, scale: float) -> np.ndarray:
    labels = prediction.label_map
    number = len(prediction.classes.names)
    palette = np.array([prediction.classes.colour(k) for k in range(number)], np.uint8)
    picture = _enlarged(prediction.image, scale)
    height, width = picture.shape[:2]
    tint = palette[:, ::-1][labels.clip(0, number - 1)]
    # Pixels of no class stay as they are.
    tint[labels >= number] = prediction.image[labels >= number]
    tint = cv2.resize(tint, (width, height), interpolation=cv2.INTER_NEAREST)
    text = TextLabels(cv2.addWeighted(picture, 1 - _LABEL_MAP_OPACITY, tint, _LABEL_MAP_OPACITY, 0))
    for label, (across, down) in _segments(labels):
        if label >= number:
            continue
        name = prediction.classes.name(label)
        text_width, text_height = text.measure(name)
        place = across * width - text_width / 2, down * height - text_height / 2
        text.write(name, [place], colour=prediction.classes.colour(label))
    return text.picture()


def _segments(labels: np.ndarray) -> Iterator[tuple[int, Point]]:
    """Yield, by area, each class and the innermost point of its largest segment, as shares."""
    shrink = max(1, max(labels.shape) / _PLACING_PX)
    size = [max(1, round(side / shrink)) for side in labels.shape[::-1]]
    small = cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST)
    counts = np.bincount(small.ravel())
    for label in np.argsort(-counts, kind='stable').tolist():
        if counts[label] <= _LEAST_SHARE * small.size:
            return
        # A border of other pixels: the edge of the image bounds a segment too.
        own = np.pad(small == label, 1).astype(np.uint8)
        _, pieces, stats, _ = cv2.connectedComponentsWithStats(own)
        largest = 1 + stats[1:, cv2.CC_STAT_AREA].argmax()
        depth = cv2.distanceTransform((pieces == largest).astype(np.uint8), cv2.DIST_L2, 3)
        deep = np.argwhere(depth > _DEEP * depth.max())
        row, column = deep[((deep - deep.mean(0)) ** 2).sum(1).argmin()]
        yield label, ((column - 0.5) / size[0], (row - 0.5) / size[1])


def _draw_best(prediction: Prediction, *, scale: float) -> np.ndarray:
    text = TextLabels(_enlarged(prediction.image, scale))
    if prediction.is_truth:
        rows = [(int(label), '') for label in prediction.sample.gt_label]
    else:
        best = prediction.to_dict()['best']
        rows = [(row['label'], f' {row["score"]:.2f}') for row in best]
    for row, (label, ending) in enumerate(rows):
        place = 0, row * (text.line_px + 2)
        colour = prediction.classes.colour(label)
        text.write(prediction.classes.name(label), [place], colour=colour, ending=ending)
    return text.picture()


def _enlarged(image: np.ndarray, scale: float) -> np.ndarray:
    if scale == 1:
        return image.copy()
    height, width = image.shape[:2]
    size = round(scale * width), round(scale * height)
    return cv2.resize(image, size, interpolation=cv2.INTER_CUBIC)
