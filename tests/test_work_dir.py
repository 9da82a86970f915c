"""Which config and checkpoint of a work dir the tools take."""

import os

import pytest

from swinv2_mm.checkpoint.reading import local_path, pointed_at
from swinv2_mm.engine.work_dir import checkpoint_in, checkpoints_in, config_in, work_dirs_below
from swinv2_mm.errors import UserError


@pytest.fixture
def work_dir(tmp_path):
    """Of a training whose newest file is not the one that its pointer names."""
    names = ['best_b_iter_1.pth', 'iter_1.pth', 'best_a_iter_2.pth', 'iter_2.pth', '.new.pth']
    for age, name in enumerate(names):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (age, age))
    (tmp_path / 'last_checkpoint').write_text('/moved/away/iter_1.pth')
    (tmp_path / 'model.py').touch()
    return tmp_path


def test_checkpoints(work_dir):
    assert checkpoint_in(work_dir).name == 'iter_1.pth'
    assert checkpoint_in(work_dir, which='best').name == 'best_a_iter_2.pth'
    assert [path.name for path in checkpoints_in(work_dir)][:2] == [
        'iter_2.pth',
        'best_a_iter_2.pth',
    ]
    for path in work_dir.glob('best*'):
        path.unlink()
    assert checkpoint_in(work_dir, which='best').name == 'iter_1.pth'
    (work_dir / 'iter_1.pth').unlink()
    assert checkpoint_in(work_dir).name == 'iter_2.pth'
    (work_dir / 'iter_2.pth').unlink()
    with pytest.raises(UserError, match='--checkpoint'):
        checkpoint_in(work_dir)


def test_work_dir_in_the_place_of_a_checkpoint(work_dir):
    wanted = work_dir / 'iter_1.pth'
    for source in (work_dir, work_dir / 'last_checkpoint', wanted):
        assert pointed_at(source) == local_path(source) == wanted
    wanted.unlink()
    with pytest.raises(UserError, match=r'iter_1\.pth, which does not exist'):
        local_path(work_dir)
    (work_dir / 'last_checkpoint').write_bytes(bytes(10))
    with pytest.raises(UserError, match='last_checkpoint'):
        local_path(work_dir)


def test_config(work_dir):
    assert config_in(work_dir).name == 'model.py'
    (work_dir / 'other.py').touch()
    with pytest.raises(UserError, match='--config'):
        config_in(work_dir)
    with pytest.raises(UserError, match='does not exist'):
        config_in(work_dir / 'none')


def test_all_trainings(work_dir, tmp_path_factory):
    root = work_dir.parent
    assert work_dir in work_dirs_below(root)
    assert work_dirs_below(tmp_path_factory.mktemp('empty')) == []
