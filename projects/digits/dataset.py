"""Generate a small data set for three tasks from images that installed packages carry.

Handwritten digits of scikit-learn lie as objects on photographs of scikit-image and scikit-learn.
The same pictures serve detection with masks (COCO) and segmentation (label maps); pictures of one
digit each serve classification (a folder per class). Digits and photograph parts of ``val`` do not
occur in ``train``.
"""

import json
import shutil
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

CLASSES = ('zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine')

# Raise it with every change of the output, or finished data sets of older code would be reused.
FORMAT_VERSION = 1
MARKER = 'complete.json'
TITLE = 'Digits on photographs (made by projects/digits of swinv2_mm)'

# Below this the strokes of the smallest digits are thinner than a pixel.
MIN_SIZE_PX = 32

# A run takes well under a minute; what is older was left by one that was killed.
LEFTOVER_AGE_S = 3600

README = """\
{title}

images/{{train,val}}/*.jpg         pictures with one to five digits
annotations/{{train,val}}.json     COCO instances, category ids 1 to 10 for zero to nine
label_maps/{{train,val}}/*.png     0 background, 1 to 10 for zero to nine
folders/{{train,val}}/<class>/     pictures of one digit, a folder per class
complete.json                    the parameters; written last

Handwritten digits differ between train and val, and so do the photographs' parts: columns left of
66 % train, columns right of 70 % validate. Mirrored digits are not digits: train without flips.

Digits: scikit-learn's load_digits (BSD-3-Clause package), a copy of the test set of "Optical
Recognition of Handwritten Digits", E. Alpaydin and C. Kaynak, UCI Machine Learning Repository,
CC BY 4.0. Enlarged, turned, slanted, stretched and coloured here.

Photographs, cut, scaled and drawn on here. Terms as stated in skimage/data/_fetchers.py (the
folder's README.txt says only that the wheel carries part of the collection) and in
sklearn/datasets/images/README.txt:
{sources}
"""


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """What decides the content; equal parameters give equal files."""

    num_train: int
    num_val: int
    image_size_px: int
    num_train_crops_per_class: int
    num_val_crops_per_class: int
    crop_size_px: int
    seed: int
    format_version: int = FORMAT_VERSION

    def check(self) -> None:
        """Refuse values that cannot be made.

        Raises:
            ValueError: If a count or a size is too small.
        """
        for name, value in asdict(self).items():
            least = MIN_SIZE_PX if name.endswith('_px') else 1 if name.startswith('num_') else 0
            if value < least:
                raise ValueError(f'{name} must be at least {least}, got {value}')


def make_digits_on_photos(
    root: Path | str,
    *,
    num_train: int = 300,
    num_val: int = 60,
    image_size_px: int = 128,
    num_train_crops_per_class: int = 600,
    num_val_crops_per_class: int = 30,
    crop_size_px: int = 64,
    seed: int = 0,
    progress: bool = True,
) -> Path:
    """Make the data set, or reuse it where it is finished and of equal parameters.

    It grows in a hidden sibling folder that takes its name at the end: ``root`` is never half
    written. A data set of other parameters, or an unfinished one, is replaced.

    Args:
        root: Folder to hold the data set.
        num_train: Pictures with several digits to train on.
        num_val: Pictures with several digits to validate on.
        image_size_px: Side of those.
        num_train_crops_per_class: Pictures of a single digit to train on, for each of the ten.
        num_val_crops_per_class: Pictures of a single digit to validate on, for each of the ten.
        crop_size_px: Side of those.
        seed: Seed of everything random; the same one gives the same bytes.
        progress: Whether to show a progress bar on stderr.

    Returns:
        ``root``, absolute.

    Raises:
        ValueError: If a count or a size is too small.
        FileExistsError: If ``root`` holds something else than such a data set.
        ImportError: If the packages that carry the pixels are missing.
    """
    parameters = Parameters(
        num_train=num_train,
        num_val=num_val,
        image_size_px=image_size_px,
        num_train_crops_per_class=num_train_crops_per_class,
        num_val_crops_per_class=num_val_crops_per_class,
        crop_size_px=crop_size_px,
        seed=seed,
    )
    parameters.check()
    root = Path(root).resolve()
    if _is_finished(root, parameters=parameters):
        return root
    if root.exists() and not _is_replaceable(root):
        raise FileExistsError(f'{root} holds other files; name a new or an empty folder')

    root.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(root)
    partial = Path(tempfile.mkdtemp(prefix=_partial_prefix(root), dir=root.parent))
    try:
        made = partial / 'made'
        _generate(made, parameters=parameters, progress=progress)
        if root.exists():
            root.rename(partial / 'replaced')
        made.rename(root)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return root


def _generate(root: Path, *, parameters: Parameters, progress: bool) -> None:
    """Write every file, the marker last."""
    # Not at the top: reuse and the constants above need neither the packages nor their seconds.
    try:
        from tqdm import tqdm

        from .files import write_crops, write_scenes
        from .photographs import available_sources
    except ImportError as error:
        raise ImportError(
            f'the demo data set needs {error.name}: pip install swinv2_mm[demo]', name=error.name
        ) from error

    root.mkdir()
    sources = '\n'.join(f'  {s.package}/{s.file}: {s.terms}' for s in available_sources())
    readme = README.format(title=TITLE, sources=sources)
    (root / 'README.txt').write_text(readme, encoding='utf-8')

    p = parameters
    scenes = {'train': p.num_train, 'val': p.num_val}
    crops = {'train': p.num_train_crops_per_class, 'val': p.num_val_crops_per_class}
    total = sum(scenes.values()) + len(CLASSES) * sum(crops.values())
    is_off = None if progress else True  # None: where there is no terminal
    with tqdm(total=total, desc='digits on photographs', unit='img', disable=is_off) as bar:
        for split in ('train', 'val'):
            common = {'split': split, 'seed': p.seed, 'classes': CLASSES, 'advance': bar.update}
            write_scenes(root, num_images=scenes[split], size_px=p.image_size_px, **common)
            write_crops(root, num_per_class=crops[split], size_px=p.crop_size_px, **common)
    (root / MARKER).write_text(json.dumps(asdict(p), indent=2) + '\n', encoding='utf-8')


def _is_finished(root: Path, *, parameters: Parameters) -> bool:
    """Whether a finished set of these parameters is there."""
    try:
        return json.loads((root / MARKER).read_text(encoding='utf-8')) == asdict(parameters)
    except (OSError, ValueError):
        return False


def _is_replaceable(root: Path) -> bool:
    """Whether removing a folder loses nothing but such a data set."""
    if not root.is_dir():
        return False
    readme = root / 'README.txt'
    if readme.is_file():
        return readme.read_text(encoding='utf-8', errors='replace').startswith(TITLE)
    return not any(root.iterdir())


def _partial_prefix(root: Path) -> str:
    return f'.{root.name}.partial-'


def _remove_leftovers(root: Path) -> None:
    """Remove what killed runs left beside the data set, but not what runs now."""
    for folder in root.parent.glob(f'{_partial_prefix(root)}*'):
        if time.time() - folder.stat().st_mtime > LEFTOVER_AGE_S:
            shutil.rmtree(folder, ignore_errors=True)
