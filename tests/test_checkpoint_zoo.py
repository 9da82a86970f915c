"""Released weights by name, and how they get from the net into the cache."""

import contextlib
import hashlib
import http.server
import socket
import threading
import time

import oracle
import pytest
import torch
from test_checkpoint_layouts import assert_refused, build

from swinv2_mm.checkpoint import RELEASED, CheckpointError, load_pretrained, save_pretrained
from swinv2_mm.checkpoint.building import model_of
from swinv2_mm.checkpoint.download import cached_path, fetch
from swinv2_mm.checkpoint.zoo import find_released, url_of
from swinv2_mm.core import ARCHITECTURES


def test_the_table_is_that_of_the_model_hub():
    assert len(RELEASED) == 12 + 2 * 63
    assert len({model.file_name for model in RELEASED.values()}) == len(RELEASED)
    for name, model in RELEASED.items():
        assert name == model.name and model.arch in ARCHITECTURES
        place = f'simmim_swinv2_{"finetune" if model.num_classes else "pretrain"}_models'
        place = place if 'simmim' in name else 'v2.0.0'
        assert model.url.endswith(f'/{place}/{model.file_name}.pth')
        assert (model.top1 is None) == (model.num_classes in (0, 21841))
    sides = {n: tuple(size[0] for size in m.pretrained_window_sizes) for n, m in RELEASED.items()}
    assert sides['swinv2-tiny-w8-256_in1k'] == (8, 8, 8, 8)
    assert sides['swinv2-base-w16-256_in1k'] == (16, 16, 16, 8)
    assert sides['swinv2-base-w12-192_in22k'] == (12, 12, 12, 6)
    assert sides['swinv2-large-w24-384_in22k-ft-in1k'] == (12, 12, 12, 6)


def test_top1_of_the_simmim_family_is_that_of_the_hub():
    scores = {model.file_name: model.top1 for model in RELEASED.values()}
    assert scores['finetune_swinv2_base_1k_500k'] == 85.04
    assert scores['finetune_swinv2_huge_1k_500k'] == 86.34
    assert scores['finetune_swinv2_giant_1k_500k'] == 86.46


@pytest.mark.parametrize(
    'name',
    [
        'swinv2-base-w24-384_in22k-ft-in1k',
        'swinv2_base_patch4_window12to24_192to384_22kto1k_ft',
        '/weights/swinv2_base_patch4_window12to24_192to384_22kto1k_ft.pth',
        'swinv2_base_window12to24_192to384.ms_in22k_ft_in1k',
        'microsoft/swinv2-base-patch4-window12to24-192to384-22kto1k-ft',
    ],
)
def test_models_are_known_by_all_their_names(name):
    assert find_released(name) is RELEASED['swinv2-base-w24-384_in22k-ft-in1k']


def test_a_misspelt_name_gets_a_suggestion():
    with pytest.raises(CheckpointError, match="did you mean 'swinv2-base-w12-192_in22k'"):
        url_of('swinv2-base-w12-192-in22k')
    assert url_of('work_dirs/swinv2-mine/epoch_1.pth') is None
    assert find_released('swinv2_base_mine.pth') is None


def test_a_name_loads_what_the_cache_holds(tmp_path, monkeypatch):
    """Without the net: the official file, which lacks nothing but the arch of the test."""
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    model = build(window_size=12)
    path = cached_path(RELEASED['swinv2-base-w12-192_in22k'].url)
    assert path.parent == tmp_path / 'hub' / 'checkpoints'
    path.parent.mkdir(parents=True)
    # timm's files do not tell the windows: the name does.
    save_pretrained(model, path, layout='timm')
    for source in ('swinv2-base-w12-192_in22k', path):
        other = build(seed=1, window_size=24)
        load_pretrained(other, source)
        assert other.get_pretrained_window_sizes() == ((12, 12), (12, 12), (12, 12), (6, 6))
    path.rename(path.with_name('mine.pth'))
    assert_refused(build(window_size=24), path.with_name('mine.pth'), 'do not say which windows')


def test_names_work_in_configs(tmp_path, monkeypatch):
    from mmengine.registry import MODELS

    import swinv2_mm.models  # noqa: F401

    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    name = 'swinv2-tiny-w8-256_in1k'
    source = build(window_size=8)
    cached_path(RELEASED[name].url).parent.mkdir(parents=True)
    save_pretrained(source, cached_path(RELEASED[name].url), layout='official')
    model = MODELS.build(
        {
            'type': 'SwinV2',
            'arch': source.arch,
            'window_size': 16,
            'init_cfg': {'type': 'Pretrained', 'checkpoint': name},
        }
    )
    model.init_weights()
    name = 'layers.0.blocks.0.attn.qkv.weight'
    assert torch.equal(model.get_parameter(name), source.get_parameter(name))
    assert model.get_pretrained_window_sizes() == ((8, 8),) * 4


def test_timm_folders_are_known_by_their_architecture(tmp_path):
    save_pretrained(build(window_size=12), tmp_path / 'weights.bin', layout='timm')
    (tmp_path / 'weights.bin').rename(tmp_path / 'pytorch_model.bin')
    (tmp_path / 'config.json').write_text('{"architecture": "swinv2_large_window12_192"}')
    sizes = ((12, 12), (12, 12), (12, 12), (6, 6))
    assert model_of(tmp_path)[1].pretrained_window_sizes == sizes
    (tmp_path / 'config.json').write_text('not json')
    with pytest.raises(CheckpointError, match='windows'):
        model_of(tmp_path)


def test_timm_features_have_names_of_their_own():
    import timm

    peer = timm.create_model(
        'swinv2_tiny_window8_256', features_only=True, img_size=64, window_size=4,
        embed_dim=8, depths=(2, 1, 3, 2), num_heads=(1, 2, 2, 4),
    ).eval()  # fmt: skip
    oracle.randomise(peer, seed=0)
    model = build(seed=1, out_indices=(0, 1, 2, 3), pretrained_window_sizes=(4, 4, 4, 2))
    report = load_pretrained(model, peer.state_dict())
    assert report.layout == 'timm features'
    assert {name.partition('.')[0] for name in report.missing} == {f'norm{i}' for i in range(4)}
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    for i in range(4):
        # Ours are normalised, timm's are not.
        setattr(model, f'norm{i}', torch.nn.Identity())
    with torch.no_grad():
        for ours, theirs in zip(model(x), peer(x), strict=True):
            theirs = theirs.permute(0, 3, 1, 2)
            assert (ours - theirs).abs().max() <= 2e-4 * theirs.abs().max()


# --- downloads ----------------------------------------------------------------------------------


class Server(http.server.ThreadingHTTPServer):
    """Serves one content, and may promise more than it has."""

    def __init__(self, content):
        self.content, self.promised, self.requests = content, len(content), []
        super().__init__(('127.0.0.1', 0), Handler)

    def url(self, name):
        return f'http://127.0.0.1:{self.server_port}/{name}'


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.requests.append(self.path)
        if 'absent' in self.path:
            self.send_error(404)
        elif 'loop' in self.path:
            self.send_response(302)
            self.send_header('Location', self.path)
            self.end_headers()
        elif 'garbage' in self.path:
            self.wfile.write(b'\x1b[2J no answer of a server\r\n' * 9)
        elif 'slow' in self.path:
            self.send_response(200)
            self.end_headers()
            with contextlib.suppress(OSError):
                for _ in range(100):
                    self.wfile.write(b'x')
                    time.sleep(0.1)
        else:
            self.send_response(200)
            self.send_header('Content-Length', str(self.server.promised))
            self.end_headers()
            self.wfile.write(self.server.content)

    def log_message(self, *args):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'home'))
    model = build()
    save_pretrained(model, tmp_path / 'good.pth')
    with Server((tmp_path / 'good.pth').read_bytes()) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()


def files_in(folder):
    return sorted(path.name for path in folder.rglob('*') if path.is_file())


def test_files_are_fetched_once_with_a_progress_bar(server, tmp_path, capsys):
    for _ in range(2):
        other = build(seed=1)
        load_pretrained(other, server.url('mine.pth?download=1'))
        assert torch.equal(other.norm3.weight, build().norm3.weight)
    assert server.requests == ['/mine.pth?download=1']
    assert '100%' in capsys.readouterr().err
    (name,) = files_in(tmp_path / 'home')
    assert name.endswith('-mine.pth')


def test_half_a_file_is_not_kept(server, tmp_path):
    server.promised += 10
    with pytest.raises(CheckpointError, match=r'broke off|cannot download'):
        fetch(server.url('mine.pth'))
    assert files_in(tmp_path / 'home') == []


def test_the_hash_in_a_name_is_checked(server, tmp_path):
    right = hashlib.sha256(server.content).hexdigest()[:8]
    assert fetch(server.url(f'swin-{right}.pth')).read_bytes() == server.content
    with pytest.raises(CheckpointError, match='SHA-256'):
        fetch(server.url('swin-0123abcd.pth'))
    assert files_in(tmp_path / 'home') == [f'swin-{right}.pth']


def test_names_do_not_meet_in_the_cache(server, tmp_path):
    """The second of two files of one name once got the first one's weights."""
    one = fetch(server.url('a/epoch_12.pth'))
    server.content = b'other weights'
    server.promised = len(server.content)
    other = fetch(server.url('b/epoch_12.pth'))
    assert other.read_bytes() == server.content != one.read_bytes()
    for odd in ('a%2F..%2F..%2Fepoch.pth', 'x' * 400 + '.pth', 'a%1b[2J.pth', '%2e%2e%2f.pth'):
        path = cached_path(server.url(odd))
        assert path.parent == one.parent and path.name.isprintable() and len(path.name) < 120


def test_a_web_page_is_not_kept(server, tmp_path):
    whole = server.content
    server.content = b'  <!DOCTYPE html><title>Sign in</title>'
    server.promised = len(server.content)
    with pytest.raises(CheckpointError, match='web page'):
        fetch(server.url('mine.pth'))
    assert files_in(tmp_path / 'home') == []
    # One that an earlier version, or another program, has left there.
    cached_path(server.url('mine.pth')).write_bytes(server.content)
    server.content, server.promised = whole, len(whole)
    assert fetch(server.url('mine.pth')).read_bytes() == whole


def test_a_download_has_a_time_limit(server, tmp_path, monkeypatch):
    monkeypatch.setattr('swinv2_mm.checkpoint.download._TIMEOUT_S', 1)
    start = time.monotonic()
    with pytest.raises(CheckpointError, match='too slow'):
        fetch(server.url('slow.pth'))
    with socket.create_server(('127.0.0.1', 0)) as silent:
        with pytest.raises(CheckpointError, match='timed out'):
            fetch(f'http://127.0.0.1:{silent.getsockname()[1]}/mine.pth')
    assert time.monotonic() - start < 9
    assert files_in(tmp_path / 'home') == []


ODD_URLS = (
    'loop.pth', 'garbage.pth', 'a b.pth', 'http://[1/a.pth', f'http://{"x" * 99}/a.pth',
    'http://127.0.0.1:99999/a.pth', 'http:///a.pth', 'http://a..b/\ud800.pth',
    'https://127.0.0.1:1/a.pth',
)  # fmt: skip


@pytest.mark.parametrize('url', ODD_URLS, ids=ascii)
def test_odd_urls_have_one_line(server, tmp_path, url):
    with pytest.raises(CheckpointError) as caught:
        fetch(url if '://' in url else server.url(url))
    assert str(caught.value).isprintable()
    assert files_in(tmp_path / 'home') == []


def test_more_than_the_disk_holds_is_not_begun(server, tmp_path):
    server.promised = 10**18
    with pytest.raises(CheckpointError, match='room'):
        fetch(server.url('mine.pth'))
    assert files_in(tmp_path / 'home') == []


def test_failures_have_a_sentence_each(server, tmp_path):
    with pytest.raises(CheckpointError, match=r'cannot download .*: 404'):
        fetch(server.url('absent.pth'))
    with pytest.raises(CheckpointError, match='name'):
        fetch(server.url('weights'))
    server.shutdown()
    server.server_close()
    with pytest.raises(CheckpointError, match=r'Connection refused.*put the file at .*late\.pth'):
        fetch(f'http://127.0.0.1:{server.server_port}/late.pth')
    assert files_in(tmp_path / 'home') == []
    blocked = tmp_path / 'home' / 'hub' / 'checkpoints'
    assert not list(blocked.iterdir())
