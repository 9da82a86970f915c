"""Weight files made to hang, to fill the memory or to write to the terminal: one line each."""

import io
import json
import multiprocessing
import os
import pickle
import resource
import socket
import struct
import zipfile
import zlib
from pathlib import Path

import pytest
import torch
from conftest import only_line
from PIL import Image
from safetensors.torch import save_file
from test_hostile_input import time_limit
from test_runner import SMALL
from test_tools import CLASSIFIER

from swinv2_mm.checkpoint import load_pretrained
from swinv2_mm.checkpoint.building import model_of
from swinv2_mm.checkpoint.class_map import class_folders, read_class_map
from swinv2_mm.checkpoint.sharded import load_sharded, save_sharded
from swinv2_mm.config.file import load_config
from swinv2_mm.core import Architecture, SwinTransformerV2
from swinv2_mm.errors import UserError, printable

LONGEST_S = 20
MEMORY = 4 << 30
COORDS = 'layers.{}.blocks.0.attn.relative_coords_table'


def new():
    arch = Architecture(embed_dim=16, depths=(1, 1, 1, 1), num_heads=(1, 2, 4, 8))
    return SwinTransformerV2(arch, window_size=4)


def whole():
    return new().state_dict()


def bare():
    return {name: value for name, value in whole().items() if name != 'pretrained_window_sizes'}


def repeated(*shape):
    return torch.zeros(1).expand(shape)


CASES = {}


def case(name):
    def add(make):
        CASES[name] = make
        return make

    return add


# --- what is no file ------------------------------------------------------------------------------


case('fifo.pth')(lambda path: os.mkfifo(path))
case('fifo.safetensors')(lambda path: os.mkfifo(path))


@case('socket.pth')
def _(path):
    # The path of a socket is short: it is bound from its folder.
    before = os.getcwd()
    with socket.socket(socket.AF_UNIX) as server:
        os.chdir(path.parent)
        try:
            server.bind(path.name)
        finally:
            os.chdir(before)


case('device.pth')(lambda path: path.symlink_to('/dev/zero'))
case('folder.pth')(lambda path: path.mkdir())
case('loop.pth')(lambda path: path.symlink_to(path.name))


@case('sharded')
def _(path):
    path.mkdir()
    os.mkfifo(path / '.metadata')


@case('long' + 'x' * 300 + '.pth')
def _(path):
    pass


@case('zero\0byte.pth')
def _(path):
    pass


@case('http:[broken.pth')
def _(path):
    pass


# --- pickles --------------------------------------------------------------------------------------


def zipped(content, name='archive/data.pkl', **more):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, 'w') as archive:
        for key, value in {name: content, 'archive/version': b'3\n', **more}.items():
            archive.writestr(key, value)
    return stream.getvalue()


def of_instructions(body):
    """A pickle of a dictionary whose one key is what ``body`` makes."""
    return zipped(b'\x80\x02}' + body + b'K\x01s.')


@case('holds_itself.pth')
def _(path):
    loop = {}
    loop['state_dict'] = loop
    torch.save(loop, path)


@case('two_hold_each_other.pth')
def _(path):
    one, two = {}, {}
    one['model'], two['module'] = two, one
    torch.save(one, path, _use_new_zipfile_serialization=False)


@case('weights_in_weights.pth')
def _(path):
    begin, end = b'}X\x0a\0\0\0state_dict' * 90, b's' * 90
    path.write_bytes(zipped(b'\x80\x02' + begin + b'}' + end + b'.'))


case('key_of_tuples_that_double.pth')(
    lambda path: path.write_bytes(of_instructions(b'K\x01\x85' + b'q\x01h\x01\x86' * 60))
)
case('key_of_deep_tuples.pth')(
    lambda path: path.write_bytes(of_instructions(b'K\x01' + b'\x85' * 300_000))
)
case('value_of_deep_lists.pth')(
    lambda path: path.write_bytes(
        zipped(b'\x80\x02}K\x01' + b'](' * 100_000 + b'e' * 100_000 + b's.')
    )
)


@case('text_that_grows.pth')
def _(path):
    grow = b'X\x03\0\0\0hex\x86R'
    first = b'c_codecs\nencode\nX\x01\0\0\0aX\x05\0\0\0utf-8\x86R'
    body = b'c_codecs\nencode\n' * 44 + first + grow * 44
    path.write_bytes(of_instructions(body))


@case('text_encoded_again_and_again.pth')
def _(path):
    text = b'X' + struct.pack('<I', 10_000_000) + b'a' * 10_000_000 + b'q\x01'
    again = b'c_codecs\nencode\nh\x01X\x06\0\0\0latin1\x86Ra' * 5_000
    path.write_bytes(zipped(b'\x80\x02' + text + b']' + again + b'.'))


case('bytes_by_number.pth')(
    lambda path: path.write_bytes(of_instructions(b'cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R'))
)
case('tensor_by_number.pth')(
    lambda path: path.write_bytes(of_instructions(b'ctorch\nFloatTensor\nJ\xff\xff\xff\x7f\x85R'))
)
case('more_instructions_than_any_file.pth')(
    lambda path: path.write_bytes(of_instructions(b'N0' * 10_000_000 + b'N'))
)


@case('legacy_deep_tuples.pth')
def _(path):
    magic = torch.serialization.MAGIC_NUMBER
    heads = b''.join(pickle.dumps(part, protocol=2) for part in (magic, 1001, {}))
    path.write_bytes(heads + b'\x80\x02}K\x01' + b'\x85' * 300_000 + b'K\x01s.' + b'\x80\x02].')


case('names_that_are_no_names.pth')(
    lambda path: torch.save({(1, 2): torch.ones(1), 3.5: torch.ones(1), None: 2, 10**500: 1}, path)
)


# --- archives -------------------------------------------------------------------------------------


@case('overlapping_entries.pth')
def _(path):
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    raw, data, crc, name = bytes(1 << 20), b'', 0, b'archive/data/0'
    for _ in range(200):
        data += packer.compress(raw)
        crc = zlib.crc32(raw, crc)
    data += packer.flush()
    sizes = (crc, len(data), 200 << 20, len(name))
    head = struct.pack('<IHHHHHIIIHH', 0x04034B50, 20, 0, 8, 0, 0, *sizes, 0) + name + data
    fields = (0x02014B50, 20, 20, 0, 8, 0, 0, *sizes, 0, 0, 0, 0, 0, 0)
    entry = struct.pack('<IHHHHHHIIIHHHHHII', *fields) + name
    count, length = 3000, 3000 * len(entry)
    end = struct.pack('<IHHHHIIH', 0x06054B50, 0, 0, count, count, length, len(head), 0)
    path.write_bytes(head + entry * count + end)


@case('compressed.pth')
def _(path):
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        with archive.open('archive/data/0', 'w') as entry:
            for _ in range(400):
                entry.write(bytes(1 << 20))
        archive.writestr('archive/data.pkl', b'\x80\x02}.')


case('two_pickles_of_one_name.pth')(
    lambda path: path.write_bytes(zipped(b'\x80\x02}.', **{'archive/DATA.PKL': b'\x80\x02}.'}))
)


# --- tensors and windows --------------------------------------------------------------------------


@case('tables_of_strides_0.pth')
def _(path):
    tables = {COORDS.format(i): repeated(1, 19999, 19999, 2) for i in range(4)}
    torch.save({**bare(), **tables}, path)


case('small_tables_of_large_windows.pth')(
    lambda path: torch.save({**bare(), COORDS.format(0): repeated(1, 1, 2_000_001, 2)}, path)
)
case('stem_of_strides_0.pth')(
    lambda path: torch.save(
        {**whole(), 'patch_embed.proj.weight': repeated(16, 3, 100_000, 100_000)}, path
    )
)
case('stem_of_large_patches.pth')(
    lambda path: torch.save(
        {**whole(), 'patch_embed.proj.weight': torch.zeros(16, 3, 300, 300)}, path
    )
)


@case('stem_of_wide_model.pth')
def _(path):
    heads = {f'layers.{i}.blocks.0.attn.logit_scale': torch.zeros(1) for i in range(4)}
    torch.save({**heads, 'patch_embed.proj.weight': torch.zeros(200_000, 1, 1, 1)}, path)


case('window_buffer_of_strides_0.pth')(
    lambda path: torch.save({**bare(), 'pretrained_window_sizes': repeated(2, 1_000_000)}, path)
)
case('windows_of_nan.pth')(
    lambda path: torch.save(
        {**bare(), 'pretrained_window_sizes': torch.full((4, 2), torch.nan)}, path
    )
)
case('windows_without_values.pth')(
    lambda path: torch.save(
        {**bare(), 'pretrained_window_sizes': torch.zeros(4, 2, device='meta')}, path
    )
)


@case('tables_of_nan.pth')
def _(path):
    tables = {COORDS.format(i): torch.full((1, 7, 7, 2), torch.nan) for i in range(4)}
    torch.save({**bare(), **tables}, path)


@case('tables_of_complex_numbers.pth')
def _(path):
    tables = {COORDS.format(i): torch.ones(1, 7, 7, 2, dtype=torch.complex64) for i in range(4)}
    torch.save({**bare(), **tables}, path)


case('sparse_tensor.pth')(
    lambda path: torch.save({**whole(), 'norm3.weight': torch.ones(128).to_sparse()}, path)
)


def with_metadata(path, windows):
    save_file(bare(), path, metadata={'pretrained_window_sizes': windows})


case('window_of_4000_digits.safetensors')(
    lambda path: with_metadata(path, '[[' + '9' * 4000 + ',1],[1,1],[1,1],[1,1]]')
)
case('window_of_9000_digits.safetensors')(
    lambda path: with_metadata(path, '[[' + '9' * 9000 + ',1],[1,1],[1,1],[1,1]]')
)
case('nested_windows.safetensors')(lambda path: with_metadata(path, '[' * 100_000))
case('windows_that_are_no_numbers.safetensors')(
    lambda path: with_metadata(path, '[[NaN,Infinity],[1e999,true],["\x1b[2J",null],[-1,0]]')
)


def raw_safetensors(path, header, content=b''):
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack('<Q', len(header)) + header + content)


case('offsets_out_of_file.safetensors')(
    lambda path: raw_safetensors(
        path, {'a': {'dtype': 'F32', 'shape': [2**61], 'data_offsets': [0, 2**63]}}
    )
)
case('negative_offsets.safetensors')(
    lambda path: raw_safetensors(
        path, {'a': {'dtype': 'F32', 'shape': [-1], 'data_offsets': [-4, 0]}}
    )
)


@case('names_twice.safetensors')
def _(path):
    entry = b'"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'
    raw_safetensors(path, b'{' + entry + b',' + entry + b'}', bytes(4))


case('nested_header.safetensors')(lambda path: raw_safetensors(path, b'[' * 100_000))


@case('terabyte.safetensors')
def _(path):
    size = 10**12
    shape = [size // 4]
    raw_safetensors(
        path, {'norm3.weight': {'dtype': 'F32', 'shape': shape, 'data_offsets': [0, size]}}
    )
    os.truncate(path, path.stat().st_size + size)


@case('terabyte.pth')
def _(path):
    path.touch()
    os.truncate(path, 10**12)


def folder(path, config):
    path.mkdir()
    save_file(bare(), path / 'model.safetensors')
    (path / 'config.json').write_text(config)


case('nested_config')(lambda path: folder(path, '[' * 100_000))


@case('config_of_odd_numbers')
def _(path):
    sizes = '"image_size": 1e308, "patch_size": 1e-308, "window_size": NaN'
    folder(path, '{"model_type": "swinv2", "depths": [1], ' + sizes + '}')


@case('config_of_many_stages')
def _(path):
    windows = [0] * 1_000_000
    folder(path, json.dumps({'model_type': 'swinv2', 'image_size': 8, 'patch_size': 4,
                             'window_size': 4, 'pretrained_window_sizes': windows}))  # fmt: skip


@case('config_is_a_pipe')
def _(path):
    folder(path, '')
    (path / 'config.json').unlink()
    os.mkfifo(path / 'config.json')


# --- names ----------------------------------------------------------------------------------------


case('escape_in_name.pth')(
    lambda path: torch.save(
        {**whole(), 'layers.0.blocks.0.\x1b[2J\x1b[31mgone': torch.ones(2)}, path
    )
)
case('line_break_in_name.pth')(
    lambda path: torch.save(
        {**whole(), 'layers.0.blocks.0.a\n\r\nerror: gone': torch.ones(2)}, path
    )
)
case('surrogate_in_name.pth')(
    lambda path: torch.save({**whole(), 'layers.0.blocks.0.\ud800\u202e': torch.ones(2)}, path)
)
case('name_of_megabytes.pth')(
    lambda path: torch.save(
        {**whole(), 'layers.0.blocks.0.' + 'x' * 5_000_000: torch.ones(2)}, path
    )
)
case('\x1b[2J.pth')(lambda path: path.write_bytes(b'nothing'))
case('escape_in_class.pth')(
    lambda path: path.write_bytes(of_instructions(b'cos\x1b[2J\nsyst\x1b[31mem\n)R'))
)


# --------------------------------------------------------------------------------------------------


def attempt(path, queue):
    used = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY,) * 2)
    texts = []
    for load in (lambda: load_pretrained(new(), str(path)), lambda: model_of(str(path))):
        try:
            result = load()
            texts.append(f'loaded: {result if not isinstance(result, tuple) else result[1]}')
        except UserError as error:
            texts.append(str(error))
        except BaseException as error:
            texts.append(f'wrong: {type(error).__name__}: {error}'[:300])
    queue.put(texts)


@pytest.mark.parametrize('name', CASES, ids=lambda name: printable(name, num_letters=40))
def test_a_hostile_file_has_one_line(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    CASES[name](tmp_path / name)
    context = multiprocessing.get_context('fork')
    queue = context.Queue()
    child = context.Process(target=attempt, args=(tmp_path / name, queue), daemon=True)
    child.start()
    try:
        texts = queue.get(timeout=LONGEST_S)
    finally:
        child.kill()
        child.join()
    print(texts)
    # A model can be built that has such patches.
    for text in texts[: 1 if name == 'stem_of_large_patches.pth' else 2]:
        assert not text.startswith(('wrong', 'loaded')), text
        assert text.isprintable() and len(text) < 1000


def test_printable():
    assert printable('größe 図\n\x1b[2J\ud800\u202e') == 'größe 図\n\\x1b[2J\\ud800\\u202e'
    assert len(printable('x' * 9999, num_letters=100)) < 110


def index_of_a_terabyte(folder):
    path = folder / '.metadata'
    index = pickle.loads(path.read_bytes())
    entry = next(iter(index.state_dict_metadata.values()))
    entry.size = torch.Size([10**12])
    path.write_bytes(pickle.dumps(index))


def part_is_a_pipe(folder):
    path = next(folder.glob('*.distcp'))
    path.unlink()
    os.mkfifo(path)


def index_is_nested(folder):
    (folder / '.metadata').write_bytes(b'\x80\x04}K\x01' + b'\x85' * 300_000 + b'K\x01s.')


@pytest.mark.parametrize('spoil', [index_of_a_terabyte, part_is_a_pipe, index_is_nested])
def test_a_hostile_sharded_checkpoint(spoil, tmp_path):
    save_sharded(tmp_path, {'state_dict/a': torch.ones(3)})
    assert torch.equal(load_sharded(tmp_path)['state_dict/a'], torch.ones(3))
    spoil(tmp_path)
    with time_limit(LONGEST_S), pytest.raises(UserError, match='refused') as caught:
        load_sharded(tmp_path)
    assert len(str(caught.value)) < 1000


def test_a_hostile_class_map(tmp_path):
    path = tmp_path / 'map.txt'
    os.mkfifo(path)
    with time_limit(LONGEST_S), pytest.raises(UserError, match='pipe'):
        read_class_map(path, num_known=9, num_wanted=1)
    with time_limit(LONGEST_S), pytest.raises(UserError, match='pipe'):
        class_folders(path)
    path.unlink()
    for text in ('9' * 5000, '-1', 'x', '\x1b[2J', '٣'):
        path.write_text(text)
        with pytest.raises(UserError, match='is not a class'):
            read_class_map(path, num_known=9, num_wanted=1)


# --- the commands --------------------------------------------------------------------------------

PLANTED = (
    'fifo.pth', 'socket.pth', 'folder.pth', 'loop.pth', 'holds_itself.pth', 'terabyte.pth',
    'overlapping_entries.pth', 'key_of_tuples_that_double.pth', 'stem_of_strides_0.pth',
    'window_of_4000_digits.safetensors', 'terabyte.safetensors', 'nested_config',
    'escape_in_name.pth', 'surrogate_in_name.pth', '\x1b[2J.pth',
)  # fmt: skip


@pytest.fixture(scope='module')
def planted(tmp_path_factory):
    """Paths of hostile files, written once for all commands."""
    paths = [tmp_path_factory.mktemp('planted') / name for name in PLANTED]
    for path in paths:
        CASES[path.name](path)
    return paths


@pytest.mark.parametrize('command', ['test', 'infer', 'export', 'report', 'inspect'])
def test_a_command_has_one_line(command, planted, tool, use_data, tmp_path):
    # The report needs a validation.
    cfg = load_config(CLASSIFIER, [o for o in SMALL if '+val_' not in o])
    config, work_dir = tmp_path / 'config.py', tmp_path / 'run'
    work_dir.mkdir()
    cfg.dump(config)
    image, out = tmp_path / 'image.png', tmp_path / 'out.onnx'
    Image.new('RGB', (32, 32)).save(image)
    arguments = {
        'test': ['test', config, None, '--work-dir', work_dir],
        'infer': ['infer', image, '--config', config, '--weights', None, '--device', 'cpu'],
        'export': ['export', config, None, out, '--num-images', '1'],
        'report': ['report', work_dir, '--config', config, '--checkpoint', None],
        'inspect': ['checkpoint', 'inspect', None],
    }[command]
    for path in planted:
        name = path.name
        with time_limit(LONGEST_S):
            status, errors = tool(*(path if part is None else part for part in arguments))
        assert status == 1, (name, errors)
        line = only_line(errors)
        assert line.isprintable() and len(line) < 1000, name
        assert printable(str(path)) in line, line
    assert not out.exists()
