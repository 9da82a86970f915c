"""Define the results of an evaluation that a report shows, for every task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from .calibration import Reliability

# Titles of the sides of an example.
TRUTH, PREDICTION, ERRORS = 'ground truth', 'prediction', 'errors'


@dataclass
class Shape:
    """An object in an image.

    Attributes:
        label: Index of the class.
        box: Left, top, right, bottom in pixels.
        outline: Mask as the ``d`` of an SVG path in pixels; empty without a mask.
        score: In [0, 1]; 1 for the ground truth.
        is_missed: Whether it is an object that no prediction has found.
    """

    label: int
    box: tuple[float, float, float, float]
    outline: str = ''
    score: float = 1.0
    is_missed: bool = False


@dataclass
class Side:
    """One view of an example: the ground truth, the prediction, or the errors.

    Attributes:
        shapes: Objects.
        label_map: PNG with transparency, laid over the image; empty without one.
        words: A caption under the image.
    """

    shapes: list[Shape] = field(default_factory=list)
    label_map: bytes = b''
    words: str = ''


@dataclass
class Example:
    """An image with ground truth and prediction.

    Attributes:
        path: The image file.
        size: Height and width in pixels, as shapes count them.
        score: How good the prediction is, in [0, 1].
        labels: Indices of the classes in any side.
        sides: What is shown side by side, by its title.
        missed: What the prediction lacks, in words; empty if nothing.
    """

    path: str
    size: tuple[int, int]
    score: float
    labels: set[int]
    sides: Mapping[str, Side]
    missed: str = ''


@dataclass
class Findings:
    """The results of an evaluation.

    Attributes:
        metrics: Value by name, as text.
        columns: Heads of the table of classes, the name's left out.
        main_column: The one of them to compare models by.
        rows: Per class what goes under them; NaN where there is nothing to measure.
        curves: Recall and precision, by what they are of, such as ``masks at IoU 0.5``, and by the
            index of a class.
        confusion: Counts, truth by prediction.
        confusion_names: Names of its rows and columns.
        score_name: What the score of an example is.
        examples: In the order of the data set.
        reliability: How often predictions are right, by their score; ``None`` without scores.
        has_boxes: Whether examples have shapes with boxes.
        has_masks: Whether they have masks or label maps.
    """

    metrics: Mapping[str, str]
    columns: Sequence[str]
    main_column: str
    rows: Sequence[Sequence[float]]
    curves: Mapping[str, Mapping[int, tuple[np.ndarray, np.ndarray]]]
    confusion: np.ndarray
    confusion_names: Sequence[str]
    score_name: str
    examples: Sequence[Example]
    reliability: Reliability | None = None
    has_boxes: bool = False
    has_masks: bool = False
