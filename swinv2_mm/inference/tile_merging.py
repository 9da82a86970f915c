"""Merge the detections of overlapping tiles into those of the image.

What two tiles see of one object agrees where they overlap: only that is compared. A detection that
ends at the border of its tile is cut: it gives way to one that is whole, or is put together with
the other parts. As in sahi, areas are compared by the share of the smaller one (IoS) where a part
is compared.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import box_area, box_iou

from .run_lengths import runs_box, union
from .tile_grid import Span

# How much of a part another detection has to cover, and the IoU of two that are one object.
_MATCH_THRESHOLD = 0.5
# A detection gives way to, or is put together with, one of at least this share of its score: what
# a model is hardly sure of changes nothing that it is sure of.
_SCORE_SHARE = 0.5
# Boxes of a model end near the border that cuts their object: so near, as a share of the tile.
_BORDER_SHARE = 0.01
_LEAST_BORDER_PX = 2


@dataclass(frozen=True)
class Detections:
    """Detections of an image or of a part of it.

    Attributes:
        boxes: (n, 4) float64: left, top, right, bottom in pixels of the image.
        scores: (n,).
        labels: (n,).
        masks: Runs of each (see ``run_lengths``), or ``None``.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    masks: list[np.ndarray] | None = None

    def __len__(self) -> int:
        return len(self.boxes)


@dataclass(frozen=True)
class _Part:
    """Detections of a tile: where it is, the number of the first one, and which are cut."""

    rows: Span
    columns: Span
    first: int
    found: Detections
    is_cut: Tensor


class DetectionMerger:
    """Collect detections tile by tile, and merge them.

    Memory grows with the detections, not with the image.

    Args:
        size: Size of the image, (height, width).
    """

    def __init__(self, size: tuple[int, int]) -> None:
        self._height, self._width = size
        self._parts: list[_Part] = []
        self._count = 0
        # Detections that show the same object, by the number of each.
        self._same: dict[int, list[int]] = defaultdict(list)

    def add(self, found: Detections, *, rows: Span, columns: Span) -> None:
        """Add the detections of a tile, in the order of tiles: row by row."""
        part = _Part(rows, columns, self._count, found, self._cut(found.boxes, rows, columns))
        self._count += len(found)
        for other in reversed(self._parts):
            if other.rows[0] < rows[0] and other.rows[1] <= rows[0]:
                break
            self._compare(other, part)
        self._parts.append(part)

    def _cut(self, boxes: Tensor, rows: Span, columns: Span) -> Tensor:
        (top, bottom), (left, right) = rows, columns
        border = max(_LEAST_BORDER_PX, _BORDER_SHARE * max(bottom - top, right - left))
        # A border of the image cuts nothing.
        inner = [
            (boxes[:, 0] - left, left > 0),
            (boxes[:, 1] - top, top > 0),
            (right - boxes[:, 2], right < self._width),
            (bottom - boxes[:, 3], bottom < self._height),
        ]
        near = [distance < border for distance, is_inner in inner if is_inner]
        return torch.stack(near).any(dim=0) if near else torch.zeros(len(boxes), dtype=torch.bool)

    def _compare(self, one: _Part, other: _Part) -> None:
        """Record which detections of two tiles show the same object."""
        top, bottom = max(one.rows[0], other.rows[0]), min(one.rows[1], other.rows[1])
        left, right = max(one.columns[0], other.columns[0]), min(one.columns[1], other.columns[1])
        if top >= bottom or left >= right:
            return
        (a, shared_a), (b, shared_b) = (
            self._seen(part.found, rows=(top, bottom), columns=(left, right))
            for part in (one, other)
        )
        if not len(a) or not len(b):
            return
        area_a, area_b = box_area(shared_a)[:, None], box_area(shared_b)[None]
        corners = torch.maximum(shared_a[:, None, :2], shared_b[None, :, :2])
        ends = torch.minimum(shared_a[:, None, 2:], shared_b[None, :, 2:])
        common = (ends - corners).clamp(min=0).prod(dim=2)
        cut_a, cut_b = one.is_cut[a][:, None], other.is_cut[b][None]
        # A part should lie within the whole; of two parts, the smaller within the larger.
        part_area = torch.where(cut_a & cut_b, torch.minimum(area_a, area_b), area_b)
        part_area = torch.where(cut_a & ~cut_b, area_a, part_area)
        overlap = torch.where(
            cut_a | cut_b, common / part_area, box_iou(one.found.boxes[a], other.found.boxes[b])
        )
        is_same = (overlap >= _MATCH_THRESHOLD) & (
            one.found.labels[a][:, None] == other.found.labels[b][None]
        )
        for i, k in is_same.nonzero().tolist():
            first, second = one.first + int(a[i]), other.first + int(b[k])
            self._same[first].append(second)
            self._same[second].append(first)

    def _seen(self, found: Detections, *, rows: Span, columns: Span) -> tuple[Tensor, Tensor]:
        """Return the detections that lie in a part of the image, and the boxes of what is there."""
        low = torch.tensor([columns[0], rows[0]] * 2)
        high = torch.tensor([columns[1], rows[1]] * 2)
        boxes = found.boxes.maximum(low).minimum(high)
        numbers = (box_area(boxes) > 0).nonzero()[:, 0]
        boxes = boxes[numbers]
        if found.masks is not None and len(numbers):
            boxes = boxes.new_tensor(
                [
                    runs_box(found.masks[k], height=self._height, rows=rows, columns=columns)
                    for k in numbers.tolist()
                ]
            )
            is_there = box_area(boxes) > 0
            numbers, boxes = numbers[is_there], boxes[is_there]
        return numbers, boxes

    def merge(self) -> Detections:
        """Return the detections of the image, sorted by score."""
        if not self._count:
            nothing = torch.zeros(0)
            return Detections(nothing.reshape(0, 4).double(), nothing, nothing.long())
        boxes, scores, labels, is_cut = (
            torch.cat(values)
            for values in zip(
                *((p.found.boxes, p.found.scores, p.found.labels, p.is_cut) for p in self._parts),
                strict=True,
            )
        )
        masks = [mask for part in self._parts for mask in part.found.masks or ()] or None
        kept = [
            (max(group, key=lambda k: scores[k].item()), group)
            for group in self._groups(scores.tolist(), is_cut.tolist())
        ]
        kept.sort(key=lambda pair: -scores[pair[0]].item())
        best = [number for number, _ in kept]
        merged = [
            torch.cat([boxes[group, :2].amin(dim=0), boxes[group, 2:].amax(dim=0)])
            for _, group in kept
        ]
        if masks is not None:
            masks = [
                masks[group[0]] if len(group) == 1 else union([masks[k] for k in group])
                for _, group in kept
            ]
        return Detections(torch.stack(merged), scores[best], labels[best], masks)

    def _groups(self, scores: list[float], is_cut: list[bool]) -> list[list[int]]:
        """Return those that remain: one by one if they are whole, else with their other parts."""
        is_open = [True] * self._count
        groups = []
        # Whole ones first, each kind by score; neighbours that remain have less.
        for number in sorted(range(self._count), key=lambda k: (is_cut[k], -scores[k], k)):
            if not is_open[number]:
                continue
            is_open[number] = False
            group = [number]
            for member in group:
                for other in self._same.get(member, ()):
                    least = _SCORE_SHARE * max(scores[number], scores[other])
                    is_duplicate = not (is_cut[number] or is_cut[other])
                    if is_open[other] and (
                        is_duplicate or min(scores[number], scores[other]) >= least
                    ):
                        is_open[other] = False
                        if is_cut[number]:
                            group.append(other)
            groups.append(group)
        return groups
