"""Making the data set: finished, interrupted, foreign and impossible ones."""

import json
import os
import sys
import time

import pytest
from test_digits import TINY, files_of

from projects.digits import files, photographs
from projects.digits.dataset import (
    LEFTOVER_AGE_S,
    MARKER,
    make_digits_on_photos,
)


def test_finished_set_is_reused_and_other_parameters_replace_it(tmp_path):
    root = make_digits_on_photos(tmp_path / 'digits', **TINY)
    before = (root / MARKER).stat().st_mtime_ns
    start = time.perf_counter()
    assert make_digits_on_photos(root, **TINY) == root
    assert time.perf_counter() - start < 1
    assert (root / MARKER).stat().st_mtime_ns == before
    make_digits_on_photos(root, **{**TINY, 'num_train': 3})
    assert len(list((root / 'images' / 'train').iterdir())) == 3
    assert [p.name for p in tmp_path.iterdir()] == ['digits']


def test_unfinished_set_is_made_again(tmp_path):
    root = make_digits_on_photos(tmp_path / 'digits', **TINY)
    whole = files_of(root)
    for marker in ('', '{"num_train": ', None):
        if marker is None:
            (root / MARKER).unlink()
        else:
            (root / MARKER).write_text(marker)
        (root / 'annotations' / 'val.json').unlink()
        make_digits_on_photos(root, **TINY)
        assert files_of(root) == whole


@pytest.mark.parametrize('error', [KeyboardInterrupt, OSError])
def test_interrupted_generation_leaves_nothing_half_written(monkeypatch, tmp_path, error):
    def interrupted(*args, **kwargs):
        raise error

    root = tmp_path / 'digits'
    with monkeypatch.context() as patch:
        patch.setattr(files, 'write_crops', interrupted)
        with pytest.raises(error):
            make_digits_on_photos(root, **TINY)
        assert list(tmp_path.iterdir()) == []
    make_digits_on_photos(root, **TINY)
    assert json.loads((root / MARKER).read_text())['num_train'] == TINY['num_train']

    whole = files_of(root)
    with monkeypatch.context() as patch:
        patch.setattr(files, 'write_crops', interrupted)
        with pytest.raises(error):
            make_digits_on_photos(root, **TINY, seed=1)
    assert files_of(root) == whole  # the old set stays until the new one is whole


def test_leftovers_of_killed_runs_are_removed_but_not_of_running_ones(tmp_path):
    old, fresh = tmp_path / '.digits.partial-old', tmp_path / '.digits.partial-fresh'
    for folder in (old, fresh):
        (folder / 'made').mkdir(parents=True)
    past = time.time() - LEFTOVER_AGE_S - 60
    os.utime(old, (past, past))
    make_digits_on_photos(tmp_path / 'digits', **TINY)
    assert not old.exists()
    assert fresh.exists()


def test_foreign_files_are_never_replaced(tmp_path):
    (tmp_path / 'thesis.txt').write_text('years of work')
    with pytest.raises(FileExistsError, match='other files'):
        make_digits_on_photos(tmp_path, **TINY)
    with pytest.raises(FileExistsError, match='other files'):
        make_digits_on_photos(tmp_path / 'thesis.txt', **TINY)
    assert (tmp_path / 'thesis.txt').read_text() == 'years of work'


@pytest.mark.parametrize(
    'wrong', [{'num_train': 0}, {'image_size_px': 8}, {'crop_size_px': 31}, {'seed': -1}]
)
def test_values_too_small_are_refused(tmp_path, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        make_digits_on_photos(tmp_path / 'digits', **{**TINY, **wrong})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('package', ['sklearn', 'skimage'])
def test_missing_package_names_the_extra(monkeypatch, tmp_path, package):
    for name in ('files', 'scenes', 'photographs', 'mask_polygons'):
        monkeypatch.delitem(sys.modules, f'projects.digits.{name}')
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=r'pip install swinv2_mm\[demo\]'):
        make_digits_on_photos(tmp_path / 'digits', **TINY)
    assert list(tmp_path.iterdir()) == []


def test_too_few_photographs_are_named(monkeypatch, tmp_path):
    monkeypatch.setattr(photographs, 'source_path', lambda source: tmp_path / 'none.png')
    with pytest.raises(FileNotFoundError, match='scikit-image'):
        make_digits_on_photos(tmp_path / 'digits', **TINY)
