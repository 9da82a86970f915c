"""The server of predictions: answers, batches, limits, refusals, and its end."""

import base64
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import requests
import torch
from conftest import ROOT
from documents import blocks_of
from PIL import Image

from benchmarks.bad_uploads import bad_uploads, form, request, send
from benchmarks.serving import Load, run_clients, send_bad
from swinv2_mm.errors import DataError, UserError
from swinv2_mm.inference import Prediction
from swinv2_mm.inference.class_names import Classes
from swinv2_mm.inference.preparation import LoadedInput

pytest.importorskip('prometheus_client', reason='pip install -r requirements/serve.txt')
from swinv2_mm.datasets.image_files import UploadLimits
from swinv2_mm.serving.app import ServerSettings, build_app
from swinv2_mm.serving.batching import RecentPeak
from swinv2_mm.serving.refusals import RateLimiter, Refusal
from swinv2_mm.serving.server import listen, serving

LIMITS = UploadLimits(num_bytes=1 << 20, num_pixels=1_000_000, side_px=2000)


class Brightness:
    """An inferencer whose classes are dark and bright; it can be made slow, or to fail.

    An image whose first pixel is (9, 9, 9) breaks the model, (8, 8, 8) takes all memory.
    """

    task = 'classification'

    def __init__(self):
        self.classes = Classes(('dark', 'bright'), ((0, 0, 0), (255, 255, 255)))
        self.batches = []
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    def prepare(self, image, number=0):
        if image.shape[0] == 1:
            raise DataError('the image cannot be used: nothing is left of it')
        return LoadedInput(image, image, {}, image.shape)

    def predict(self, batch, *, on_error):
        self.may_go_on.wait(30)
        self.batches.append(len(batch))
        firsts = [int(loaded.image[0, 0, 0]) for loaded in batch]
        if 9 in firsts:
            raise ZeroDivisionError('secret of the model')
        for loaded, first in zip(batch, firsts, strict=True):
            if first == 8:
                on_error(loaded.source, 'too many pixels for the memory')
                continue
            bright = torch.tensor(float(loaded.image.mean() / 255))
            sample = SimpleNamespace(pred_score=torch.stack([1 - bright, bright]))
            yield Prediction(loaded.source, loaded.image, sample, self.task, self.classes)

    def draw(self, prediction, *, score_threshold):
        return np.ascontiguousarray(prediction.image[::-1])


def png(value, size=(20, 30), kind='PNG'):
    file = io.BytesIO()
    Image.fromarray(np.full((*size, 3), value, np.uint8)).save(file, kind)
    return file.getvalue()


@pytest.fixture(scope='module')
def model():
    return Brightness()


@pytest.fixture(scope='module')
def url(model):
    settings = ServerSettings(batch_size=4, max_wait_s=0.2, max_open=6, upload_s=0.5, image=LIMITS)
    with serving(build_app(model, settings=settings)) as url:
        yield url


@pytest.fixture
def post(url):
    with requests.Session() as session:
        yield lambda body=None, **options: session.post(
            f'{url}/predict', data=body, timeout=30, **options
        )


def test_answers(url, post):
    """A body, a form, options: what infer writes, and a picture if asked for."""
    expected = [
        {'class': 'bright', 'label': 1, 'score': 0.8},
        {'class': 'dark', 'label': 0, 'score': 0.2},
    ]
    answer = post(png(204))
    assert answer.status_code == 200, answer.text
    assert answer.json() == {'width': 30, 'height': 20, 'best': expected}
    curl = {'Content-Type': 'application/x-www-form-urlencoded'}
    assert post(png(204), headers=curl).json() == answer.json()
    assert post(files={'image': ('a.png', png(204))}).json() == answer.json()
    drawn = post(png(51), params={'draw': 'true'}).json()
    pixels = cv2.imdecode(np.frombuffer(base64.b64decode(drawn['visualization']), np.uint8), 1)
    assert pixels.shape == (20, 30, 3) and abs(int(pixels[0, 0, 0]) - 51) < 3
    described = requests.get(f'{url}/model', timeout=30).json()
    assert described == {'task': 'classification', 'classes': ['dark', 'bright']}
    assert '/predict' in requests.get(f'{url}/openapi.json', timeout=30).json()['paths']


@pytest.mark.parametrize(
    ('options', 'status', 'words'),
    [
        ({'body': b''}, 400, 'empty'),
        ({'body': b'hello'}, 422, 'no known image format'),
        ({'body': png(50)[:70]}, 422, 'cannot be read'),
        ({'body': png(5, (1500, 1400))}, 422, '1,400 x 1,500 pixels'),
        ({'body': bytes(LIMITS.num_bytes + 1)}, 413, '1,048,576 bytes'),
        ({'body': iter([bytes(LIMITS.num_bytes)] * 2)}, 413, '1,048,576 bytes'),
        ({'body': png(5, (1, 9))}, 422, 'nothing is left'),
        ({'body': png(8)}, 422, 'memory'),
        ({'body': png(9)}, 500, 'the model failed on this image'),
        ({'files': {'photo': png(5)}}, 400, "in the field 'image'"),
        ({'body': png(5), 'params': {'treshold': 1}}, 400, 'treshold'),
        ({'body': png(5), 'params': {'score_threshold': 2}}, 400, 'score_threshold'),
        ({'body': png(5), 'headers': {'Content-Encoding': 'gzip'}}, 415, 'Content-Encoding'),
    ],
    ids=lambda value: str(value) if isinstance(value, int) else '',
)
def test_refuses_in_one_sentence(options, status, words, post, capsys):
    answer = post(**options)
    assert (answer.status_code, list(answer.json())) == (status, ['error'])
    assert words in answer.json()['error'] and LIMITS_VARIABLE not in answer.text
    assert 'secret' not in answer.text and ('secret' in capsys.readouterr().err) == (status == 500)


LIMITS_VARIABLE = 'SWINV2_MM_IMAGE_LIMITS'


def test_batches_of_one_size(url, model, post):
    """While the model works requests collect; one that breaks it breaks no other."""
    model.may_go_on.clear()
    model.batches.clear()
    with ThreadPoolExecutor(6) as clients:
        first = clients.submit(post, png(1))
        wait_for(lambda: open_requests(url) == 1)
        time.sleep(0.3)  # it is in the model by now
        images = [png(10), png(20), png(9), png(30, (40, 30)), png(40, (40, 30))]
        others = [clients.submit(requests.post, f'{url}/predict', image) for image in images]
        wait_for(lambda: open_requests(url) == 6)
        assert requests.get(f'{url}/health/ready', timeout=30).status_code == 503
        assert requests.get(f'{url}/health/live', timeout=30).status_code == 200
        full = post(png(1))
        assert full.status_code == 503 and full.headers['Retry-After'] == '1'
        model.may_go_on.set()
        statuses = [future.result().status_code for future in [first, *others]]
    assert statuses == [200, 200, 200, 500, 200, 200]
    # The first alone, two by size, and that which failed again one by one.
    assert model.batches[0] == 1 and Counter(model.batches[1:]) == {3: 1, 2: 1, 1: 3}
    assert requests.get(f'{url}/health/ready', timeout=30).json()['open_requests'] == 0


def open_requests(url):
    return requests.get(f'{url}/health/live', timeout=30).json()['open_requests']


def wait_for(condition):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_metrics(url, post):
    before = requests.get(f'{url}/metrics', timeout=30).text
    post(png(204))
    post(b'hello')
    after = requests.get(f'{url}/metrics', timeout=30).text
    for status in (200, 422):
        name = f'swinv2_mm_requests_total{{status="{status}"}}'
        assert value_of(name, after) == value_of(name, before) + 1
    for name in ('swinv2_mm_batch_images_count', 'swinv2_mm_batch_seconds_count'):
        assert value_of(name, after) == value_of(name, before) + 1
    assert value_of('process_resident_memory_bytes', after) > 1e6
    assert 'swinv2_mm_request_seconds_bucket' in after


def value_of(name, text):
    return next((float(li.split()[-1]) for li in text.splitlines() if li.startswith(name)), 0)


def test_a_slow_upload_is_ended(url):
    status, body = send(url, request(b'abc', length=1000))
    assert status == 408 and b'longer than 0.5 s' in body


def test_bad_uploads(url, model, post):
    check_bad_uploads(40, url, post)


@pytest.mark.slow
def test_a_thousand_bad_uploads(url, model, post):
    check_bad_uploads(1000, url, post)


def check_bad_uploads(number, url, post):
    photo = np.random.default_rng(0).integers(0, 200, (60, 80, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(cv2.GaussianBlur(photo, (9, 9), 3) + 40).save(file, 'JPEG')
    uploads = bad_uploads(number, image=file.getvalue())
    before = post(file.getvalue())
    statuses, faults = send_bad(url, uploads)
    assert not faults
    assert sum(counts.total() for counts in statuses.values()) == number and len(statuses) == 12
    wait_for(lambda: open_requests(url) == 0)
    after = post(file.getvalue())
    assert after.status_code == 200 and after.json() == before.json()


def test_forms_are_as_clients_write_them(url):
    body, header = form([('Content-Disposition: form-data; name="image"; filename="a"', png(204))])
    status, answer = send(url, request(body, headers=[header]))
    assert status == 200 and json.loads(answer)['best'][0]['class'] == 'bright'


def test_load(url, model):
    load = Load(3, 4)
    run_clients(url, load, images=[png(20), png(200)], seconds=0.3)
    figures = load.figures()
    assert figures['refused'] == 0 and figures['requests'] == len(load.latencies) > 3
    assert 1 <= figures['images_per_batch'] <= 3 and figures['p50_ms'] <= figures['p99_ms']


def test_rate_of_a_client():
    now = [0.0]
    limiter = RateLimiter(2, clock=lambda: now[0])
    for _ in range(2):
        limiter.check('a')
    with pytest.raises(Refusal, match='2 per second') as refusal:
        limiter.check('a')
    assert refusal.value.status == 429 and refusal.value.headers == {'Retry-After': '1'}
    limiter.check('b')
    now[0] = 0.5
    limiter.check('a')
    with pytest.raises(Refusal):
        limiter.check('a')


def test_a_peak_is_forgotten():
    now = [10.2]
    peak = RecentPeak(lambda: now[0])
    peak.add(5)
    peak.add(2)
    assert peak.value == 5
    now[0] = 11.9
    peak.add(1)
    assert peak.value == 5
    now[0] = 12.1
    assert peak.value == 1


def test_addresses(refused):
    with listen('127.0.0.1', 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match='cannot listen'):
            listen('127.0.0.1', port)
    assert 'positive' in refused('serve', '--weights', 'x.pth', '--rate', '-1')
    assert 'finite' in refused('serve', '--weights', 'x.pth', '--grace-s', 'inf')
    assert 'cannot listen' in refused('serve', '--weights', 'x.pth', '--host', 'nowhere at all')
    assert 'name a config' in refused('serve', '--weights', 'x.pth', '--port', '0')


def test_answers_do_not_wait_for_acknowledgements():
    """asyncio leaves Nagle's algorithm on for sockets that it has not made: 40 ms per answer."""
    with listen('127.0.0.1', 0) as listener, socket.create_connection(listener.getsockname()):
        connection, _ = listener.accept()
        with connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_without_the_packages(monkeypatch):
    monkeypatch.setitem(sys.modules, 'prometheus_client', None)
    monkeypatch.delitem(sys.modules, 'swinv2_mm.serving.web_packages')
    with pytest.raises(UserError, match='pip install'):
        import swinv2_mm.serving.web_packages  # noqa: F401


@pytest.mark.slow
def test_the_command(tmp_path, digits_root, subprocess_environment):
    """A real model: the client of the documentation, and what is open at SIGTERM is answered."""
    from mmengine.registry import MODELS, DefaultScope

    from swinv2_mm.config.file import load_config
    from swinv2_mm.inference import SwinV2Inferencer

    config = ROOT / 'configs' / 'detection' / 'cascade-mask-rcnn_swinv2-nano-w8_digits.py'
    cfg = load_config(str(config))
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        state = MODELS.build(cfg.model).state_dict()
    weights = tmp_path / 'weights.pth'
    torch.save({'state_dict': state, 'meta': {}}, weights)
    photo = sorted((digits_root / 'digits' / 'images' / 'val').iterdir())[0]
    (tmp_path / 'photo.jpg').write_bytes(photo.read_bytes())
    score = 'model.test_cfg.rcnn.score_thr=0.0'
    command = [sys.executable, '-m', 'swinv2_mm', 'serve', '--config', config, '--weights', weights]
    command += ['--port', '0', '--cfg-options', score]
    process = subprocess.Popen(
        list(map(str, command)),
        cwd=ROOT,
        env=subprocess_environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        line = next(line for line in process.stdout if 'http://' in line)
        address = line.split()[2].removesuffix('/predict')
        from pathlib import Path

        (client,) = (
            block for block in blocks_of(Path('docs/serving.md')) if block.language == 'python'
        )
        namespace = {}
        os.chdir(tmp_path)
        exec(client.text.replace('http://127.0.0.1:8080', address), namespace)
        (expected,) = SwinV2Inferencer(config, weights, device='cpu', options=[score])([photo])
        assert namespace['answer'].json() == expected.to_dict(score_threshold=0.5)
        whole = requests.post(f'{address}/predict', photo.read_bytes(), timeout=60).json()
        assert whole == expected.to_dict() and len(whole['detections']) > 10
        with ThreadPoolExecutor(8) as clients:
            last = [
                clients.submit(requests.post, f'{address}/predict', photo.read_bytes())
                for _ in range(8)
            ]
            wait_for(lambda: open_requests(address) >= 6)
            process.send_signal(signal.SIGTERM)
            answers = [future.result() for future in last]
        assert [answer.json() for answer in answers] == 8 * [whole]
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
