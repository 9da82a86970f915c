"""Atomic writes: the new content or the old, never half of one."""

import os
import stat

import pytest

from swinv2_mm.atomic_write import atomic_path, atomic_write, publish
from swinv2_mm.errors import UserError


def test_writes_text_and_bytes_into_new_folders(tmp_path):
    path = tmp_path / 'a' / 'b.txt'
    atomic_write(path, 'größer')
    assert path.read_bytes() == 'größer'.encode()
    atomic_write(path, b'\x00')
    assert path.read_bytes() == b'\x00' and [p.name for p in path.parent.iterdir()] == ['b.txt']


@pytest.mark.parametrize('error', [OSError(28, 'No space left'), KeyboardInterrupt()])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / 'scores.json'
    path.write_text('old')
    expected = UserError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected), atomic_path(path) as part:
        part.write_text('ha')
        raise error
    assert path.read_text() == 'old' and list(tmp_path.iterdir()) == [path]


def test_the_file_is_not_seen_before_it_is_complete(tmp_path):
    path = tmp_path / 'out.txt'
    with atomic_path(path) as part:
        part.write_text('half')
        assert not path.exists()
        part.write_text('whole')
    assert path.read_text() == 'whole'


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / 'target').write_text('old')
    (tmp_path / 'link').symlink_to('target')
    atomic_write(tmp_path / 'link', 'new')
    assert (tmp_path / 'link').is_symlink() and (tmp_path / 'target').read_text() == 'new'


def test_a_device_is_written_to(tmp_path):
    atomic_write('/dev/null', 'text')
    assert stat.S_ISCHR(os.stat('/dev/null').st_mode)


@pytest.mark.parametrize('name', ['folder', 'file/below.txt'])
def test_an_impossible_path_is_the_users_error(tmp_path, name):
    (tmp_path / 'folder').mkdir()
    (tmp_path / 'file').touch()
    with pytest.raises(UserError, match='cannot be written'):
        atomic_write(tmp_path / name, 'text')


def test_a_file_replaces_no_folder(tmp_path):
    (tmp_path / 'folder').mkdir()
    (tmp_path / 'file').touch()
    with pytest.raises(OSError, match='folder'):
        publish(tmp_path / 'file', tmp_path / 'folder')
    assert (tmp_path / 'folder').is_dir()
