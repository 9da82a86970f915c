"""Convert a binary mask to COCO polygons, holes included."""

import numpy as np
from skimage.measure import find_contours, points_in_poly


def mask_to_polygons(mask: np.ndarray) -> list[list[float]]:
    """Trace the outlines of a mask, one polygon per connected part.

    COCO polygons of one object are united, so a hole cannot be a polygon of its own. It is joined
    to the outline around it by a slit of no width; rasterisers that fill by the even-odd rule
    (pycocotools, OpenCV) leave it open.

    Args:
        mask: (H, W) bool.

    Returns:
        Polygons as ``[x0, y0, x1, y1, ...]`` where pixel (0, 0) covers [0, 1] x [0, 1].
    """
    # The border of zeros closes outlines that touch the edge of the picture.
    contours = find_contours(np.pad(mask, 1).astype(np.float64), 0.5)
    outlines, holes = [], []
    for contour in contours:
        # The last vertex repeats the first. Half a pixel from centre to corner, less the border.
        points = _drop_straight(contour[:-1, ::-1] - 0.5)
        (outlines if _signed_area(points) < 0 else holes).append(points)
    for hole in holes:
        around = [i for i, outline in enumerate(outlines) if points_in_poly(hole[:1], outline)[0]]
        # Parts can lie within holes of other parts: the hole is the innermost one's.
        inner = min(around, key=lambda i: abs(_signed_area(outlines[i])))
        outlines[inner] = _join(outlines[inner], hole)
    return [points.ravel().tolist() for points in outlines]


def _drop_straight(points: np.ndarray) -> np.ndarray:
    """Drop the vertices at which a closed outline does not turn."""
    x, y = (np.roll(points, -1, axis=0) - points).T
    turns = np.roll(x, 1) * y - np.roll(y, 1) * x
    return points[turns != 0]


def _signed_area(points: np.ndarray) -> float:
    """Shoelace area; the sign tells outlines from holes, which are traced the other way round."""
    x, y = points.T
    return float(np.sum(np.roll(x, -1) * y - x * np.roll(y, -1)) / 2)


def _join(outline: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """Splice a hole into an outline where the two come closest."""
    gaps = np.square(outline[:, None] - hole[None]).sum(-1)
    i, j = np.unravel_index(gaps.argmin(), gaps.shape)
    there_and_back = np.concatenate([hole[j:], hole[: j + 1]])
    return np.concatenate([outline[: i + 1], there_and_back, outline[i:]])
