"""Define a data set of image folders named by class index, as in ImageNet-V2."""

from __future__ import annotations

from pathlib import Path

from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS

from swinv2_mm.errors import DataError

from .image_files import IMAGE_SUFFIXES, is_image_name


@DATASETS.register_module()
class NumberedFolders(BaseDataset):
    """Images in folders named 0 to ``num_classes - 1``, as in ImageNet-V2 (arXiv 1902.10811).

    A data set that numbers its folders in the order of their names takes 10 for the class after
    1, and nearly every label is wrong. Arguments are those of ``BaseDataset``; the folders lie in
    ``data_root`` / ``data_prefix['img_path']``.

    Raises:
        DataError: If a folder is not a number, one is missing, or one holds no image.
    """

    def load_data_list(self) -> list[dict]:
        """List the images with their labels, in the order of the classes."""
        root = Path(self.data_prefix['img_path'])
        try:
            names = [entry.name for entry in root.iterdir() if entry.is_dir()]
        except OSError as error:
            raise DataError(f'folder {root} cannot be read: {error.strerror}') from error
        for name in names:
            if not name.isdecimal():
                raise DataError(f"{root}: folder '{name}' is not a class number")
        folders = {int(name): root / name for name in names}
        missing = sorted(set(range(max(folders, default=0) + 1)) - set(folders))
        if missing:
            raise DataError(
                f'{root}: {len(missing)} classes lack a folder, the first is {missing[0]}'
            )
        samples = []
        for label, folder in sorted(folders.items()):
            images = sorted(p for p in folder.rglob('*') if is_image_name(p.name))
            if not images:
                raise DataError(f'{folder} holds no image ({", ".join(IMAGE_SUFFIXES)})')
            samples += [{'img_path': str(path), 'gt_label': label} for path in images]
        return samples
