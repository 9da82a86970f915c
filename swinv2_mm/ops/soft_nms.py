"""Soft-NMS (Bodla et al., 2017): overlapping boxes lose score instead of being dropped.

numpy, not torch: the picks are sequential and each is a handful of operations on short rows, so the
cost per call dominates, and numpy's is a fraction of torch's. The compiled op is CPU-only, too.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor, from_numpy

from .precision import compute_dtype

NAIVE, LINEAR, GAUSSIAN = 0, 1, 2  # the codes mmcv passes

X1, Y1, X2, Y2, SCORE, AREA = range(6)  # rows of the working table, one column per box


def softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Tensor:
    """Pick the best box, lower the scores of those that overlap it, drop the hopeless, repeat.

    The first ``kept`` rows of ``dets`` receive the boxes and their lowered scores in the order of
    picking; the rows after them are left as they are.

    Args:
        boxes: Corners ``x1, y1, x2, y2``, on the CPU.
        scores: One per box.
        dets: Written in place.
        iou_threshold: Naive and linear lower a score when the IoU is at least this.
        sigma: Width of the Gaussian decay ``exp(-iou^2 / sigma)``.
        min_score: A box not yet picked whose score is below this is dropped.
        method: :data:`NAIVE`, :data:`LINEAR` or :data:`GAUSSIAN`.
        offset: 1 where corners are pixel indices that belong to the box, else 0.

    Shapes:
        (K, 4), (K,), (K, 5) -> (kept,)
    """
    num_boxes = len(boxes)
    dtype = compute_dtype(boxes, scores)
    corners = boxes.detach().to(dtype).numpy()
    table = np.empty((6, num_boxes), dtype=corners.dtype)
    table[:SCORE] = corners.T
    table[SCORE] = scores.detach().to(dtype).numpy()
    table[AREA] = (table[X2] - table[X1] + offset) * (table[Y2] - table[Y1] + offset)
    order = np.arange(num_boxes)

    picked = 0
    while picked < num_boxes:
        best = picked + int(table[SCORE, picked:num_boxes].argmax())
        table[:, [picked, best]] = table[:, [best, picked]]
        order[[picked, best]] = order[[best, picked]]
        rest = table[:, picked + 1 : num_boxes]
        iou = _iou(table[:, picked], rest, offset=offset)
        rest[SCORE] *= _decay(iou, iou_threshold=iou_threshold, sigma=sigma, method=method)
        picked += 1
        num_boxes = picked + _drop(rest, order[picked:num_boxes], min_score=min_score)

    dets[:num_boxes] = from_numpy(table[: SCORE + 1, :num_boxes].T.copy())
    return from_numpy(order[:num_boxes])


def _iou(box: np.ndarray, others: np.ndarray, *, offset: int) -> np.ndarray:
    width = np.minimum(others[X2], box[X2]) - np.maximum(others[X1], box[X1]) + offset
    height = np.minimum(others[Y2], box[Y2]) - np.maximum(others[Y1], box[Y1]) + offset
    overlap = np.maximum(width, 0) * np.maximum(height, 0)
    with np.errstate(invalid='ignore'):  # 0 / 0 between empty boxes is NaN, as in mmcv
        return overlap / (others[AREA] + box[AREA] - overlap)


def _decay(iou: np.ndarray, *, iou_threshold: float, sigma: float, method: int) -> np.ndarray:
    if method == GAUSSIAN:
        return np.exp(-(iou * iou) / iou.dtype.type(sigma))
    lowered = np.zeros_like(iou) if method == NAIVE else 1 - iou
    return np.where(iou >= iou.dtype.type(iou_threshold), lowered, iou.dtype.type(1))


def _drop(rest: np.ndarray, order: np.ndarray, *, min_score: float) -> int:
    """Move the columns that stay to the front, in place, and count them.

    A gap is filled from the end, not closed up: the order of the columns later decides between
    equal scores, and mmcv has this one.
    """
    stays = ~(rest[SCORE] < rest.dtype.type(min_score))
    num_stay = int(stays.sum())
    gaps = np.flatnonzero(~stays[:num_stay])
    if len(gaps):
        fillers = num_stay + np.flatnonzero(stays[num_stay:])[::-1]
        rest[:, gaps] = rest[:, fillers]
        order[gaps] = order[fillers]
    return num_stay
