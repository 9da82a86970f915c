# PYTHON_ARGCOMPLETE_OK
"""Load a server of predictions over the loop-back interface, then send it bad uploads.

One server batches requests and one does not; rounds of both alternate. Clients send the next image
when they have the answer to the last one.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from swinv2_mm.cli.arguments import new_parser, parse


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = new_parser(
        __doc__,
        examples="""
        python benchmarks/serving.py --config CONFIG --weights CKPT --images FOLDER
        python benchmarks/serving.py --weights model.onnx --images a.jpg --clients 1 8 --bad 0
        """,
    )
    parser.add_argument('--config', metavar='FILE', help='of the model')
    parser.add_argument('--weights', required=True, metavar='CKPT', help='of the model')
    parser.add_argument('--images', required=True, type=Path, help='a file, or a folder of them')
    parser.add_argument('--clients', type=int, nargs='+', default=[1, 2, 4, 8, 16], metavar='N')
    parser.add_argument('--batch-size', type=int, default=8, metavar='N', help='of the server')
    parser.add_argument('--seconds', type=float, default=5.0, metavar='S', help='of a round')
    parser.add_argument('--rounds', type=int, default=2, metavar='N', help='of each server')
    parser.add_argument('--bad', type=int, default=1000, metavar='N', help='bad uploads')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write all figures')
    return parse(parser)


if __name__ == '__main__':
    parse_args()  # answers --help, completion and mistakes before the slow imports

import http.client
import json
import re
import shlex
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from itertools import cycle
from urllib.parse import urlsplit

# Run as a script, this file finds its package beside the project's own.
sys.path.append(str(Path(__file__).resolve().parents[1]))

from benchmarks.bad_uploads import Upload, bad_uploads, request, send
from swinv2_mm.atomic_write import atomic_write
from swinv2_mm.cli.running import run_tool
from swinv2_mm.datasets.image_files import is_image_name
from swinv2_mm.errors import UserError

_TIMEOUT_S = 120
_WARM_UP_S = 1.0
_STOP_S = 60
# Those of the server that refuse nothing of the load.
_SPARE = 8
_MB = 1e6


@dataclass
class Load:
    """What a number of clients got from one server.

    Attributes:
        clients: How many at once.
        batch_size: Most images of a batch.
        seconds: Time of the rounds.
        latencies: Seconds of each request.
        num_batches: How often the model ran.
        cpu_seconds: Processor time of the server: what the load of the machine does not change.
        refused: Answers with another status than 200.
    """

    clients: int
    batch_size: int
    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    num_batches: float = 0.0
    cpu_seconds: float = 0.0
    refused: int = 0

    def figures(self) -> dict[str, float]:
        """Return what a table shows; times in milliseconds."""
        ordered = sorted(self.latencies)
        count = len(ordered)
        return {
            'clients': self.clients,
            'batch_size': self.batch_size,
            'requests': count,
            'refused': self.refused,
            'requests_per_s': round(count / self.seconds, 1),
            'p50_ms': round(1000 * ordered[count // 2], 1),
            'p99_ms': round(1000 * ordered[min(count - 1, 99 * count // 100)], 1),
            'images_per_batch': round(count / max(self.num_batches, 1), 2),
            'cpu_ms_per_image': round(1000 * self.cpu_seconds / count, 1),
        }


@contextmanager
def server(args: argparse.Namespace, *, batch_size: int) -> Iterator[tuple[str, subprocess.Popen]]:
    """Start the command in a process of its own; yield its URL and the process."""
    command = [sys.executable, '-m', 'swinv2_mm', 'serve', '--weights', args.weights]
    command += ['--config', args.config] if args.config else []
    command += ['--port', '0', '--batch-size', str(batch_size)]
    command += ['--max-open', str(max(args.clients) + _SPARE)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        found = next((m for line in process.stdout if (m := re.search(r'http://\S+:\d+', line))), 0)
        if not found:
            raise UserError(f'{shlex.join(command)} did not start')
        yield found[0], process
    finally:
        process.terminate()
        process.wait(_STOP_S)


def metric(url: str, name: str) -> float:
    """Read a metric of a server."""
    _, body = send(url, request(b'', path='/metrics', method='GET'))
    found = re.search(rf'^{name} (\S+)$', body.decode(), re.M)
    if found is None:
        raise UserError(f'{url}/metrics has no {name}')
    return float(found[1])


def run_clients(url: str, load: Load, *, images: Sequence[bytes], seconds: float) -> None:
    """Send images from several clients at once for a time, and add what they got."""
    place = urlsplit(url).netloc
    found: list[tuple[int, float]] = []
    start = threading.Barrier(load.clients + 1)

    def client(number: int) -> None:
        connection = http.client.HTTPConnection(place, timeout=_TIMEOUT_S)
        start.wait()
        end = time.perf_counter() + seconds
        for image in cycle(images[number % len(images) :] + images[: number % len(images)]):
            begun = time.perf_counter()
            if begun > end:
                break
            connection.request('POST', '/predict', body=image)
            answer = connection.getresponse()
            answer.read()
            found.append((answer.status, time.perf_counter() - begun))
        connection.close()

    names = ('swinv2_mm_batch_images_count', 'process_cpu_seconds_total')
    before = [metric(url, name) for name in names]
    with ThreadPoolExecutor(load.clients) as clients:
        waiting = [clients.submit(client, number) for number in range(load.clients)]
        start.wait()
        begun = time.perf_counter()
    for future in waiting:
        future.result()
    load.seconds += time.perf_counter() - begun
    load.latencies += [seconds for status, seconds in found if status == 200]
    load.refused += sum(status != 200 for status, _ in found)
    num_batches, cpu_seconds = (
        metric(url, name) - value for name, value in zip(names, before, strict=True)
    )
    load.num_batches += num_batches
    load.cpu_seconds += cpu_seconds


def send_bad(
    url: str, uploads: Sequence[Upload], *, at_once: int = 4
) -> tuple[dict[str, Counter], list[str]]:
    """Send bad uploads.

    Returns:
        Statuses by kind, and a line for each answer that is none of a refusal.
    """
    statuses: dict[str, Counter] = {}
    faults = []

    def answer(upload: Upload) -> tuple[int | None, bytes]:
        return send(url, upload.content, num_sent=upload.num_sent)

    with ThreadPoolExecutor(at_once) as clients:
        for upload, (status, body) in zip(uploads, clients.map(answer, uploads), strict=True):
            statuses.setdefault(upload.kind, Counter())[str(status or 'none')] += 1
            is_expected = status is None or 400 <= status < 500 or upload.may_succeed
            if not is_expected or status == 500 or b'Traceback' in body:
                faults.append(f'{upload.content[:60]!r}: {status} {body[:200]!r}')
    return statuses, faults


def read_images(path: Path) -> list[bytes]:
    """Read an image file, or those of a folder."""
    paths = (
        sorted(p for p in path.glob('**/*') if is_image_name(p.name)) if path.is_dir() else [path]
    )
    if not paths:
        raise UserError(f'--images: no image in {path}')
    return [p.read_bytes() for p in paths]


def hold_against(
    url: str, process: subprocess.Popen, *, number: int, image: bytes
) -> dict[str, object]:
    """Send bad uploads, and compare the server before and after; print what was found."""
    good, resident = request(image), 'process_resident_memory_bytes'
    before, memory = send(url, good), metric(url, resident)
    start = time.perf_counter()
    statuses, faults = send_bad(url, bad_uploads(number, image=image))
    seconds = time.perf_counter() - start
    is_alive, after = process.poll() is None, send(url, good)
    for kind, counts in statuses.items():
        print(f'  {kind:<16}' + ', '.join(f'{n} x {status}' for status, n in counts.items()))
    for fault in faults:
        print(f'  {fault}')
    grown = (metric(url, resident) - memory) / _MB
    print(
        f'{number} bad uploads in {seconds:.1f} s: server {"alive" if is_alive else "dead"}, '
        f'{len(faults)} answers that are no refusal, next answer '
        f'{"the same" if before == after and after[0] == 200 else f"differs: {after}"}, '
        f'memory {memory / _MB:.0f} MB, {grown:+.0f} MB'
    )
    return {
        'number': number,
        'seconds': round(seconds, 1),
        'statuses': {kind: dict(counts) for kind, counts in statuses.items()},
        'faults': faults,
        'alive': is_alive,
        'same_answer': before == after,
        'memory_mb': round(memory / _MB),
        'grown_mb': round(grown),
    }


def main() -> None:
    """Measure."""
    args = parse_args()
    if min(args.clients) < 1 or args.rounds < 1 or args.bad < 0 or args.seconds <= 0:
        raise UserError('--clients, --rounds and --seconds must be positive, --bad not negative')
    images = read_images(args.images)
    report: dict[str, object] = {
        'command': shlex.join(['python', *sys.argv]),
        'date': datetime.now(timezone.utc).isoformat(timespec='minutes'),
    }
    with ExitStack() as stack:
        sizes = sorted({1, args.batch_size})
        servers = {size: stack.enter_context(server(args, batch_size=size)) for size in sizes}
        loads = []
        print('clients  batch  requests/s   p50 ms   p99 ms  images/batch  CPU ms/image')
        for clients in args.clients:
            these = {size: Load(clients, size) for size in sizes}
            for url, _ in servers.values():
                run_clients(url, Load(clients, 1), images=images, seconds=_WARM_UP_S)
            for _, size in [(i, size) for i in range(args.rounds) for size in sizes]:
                run_clients(servers[size][0], these[size], images=images, seconds=args.seconds)
            for load in these.values():
                loads.append(load.figures())
                print(
                    '{clients:>7}  {batch_size:>5}  {requests_per_s:>10}  {p50_ms:>7}  {p99_ms:>7}'
                    '  {images_per_batch:>12}  {cpu_ms_per_image:>12}'.format(**loads[-1]),
                    flush=True,
                )
        report['loads'] = loads
        if args.bad:
            report['bad'] = hold_against(*servers[sizes[-1]], number=args.bad, image=images[0])
    if args.json is not None:
        atomic_write(args.json, json.dumps(report, indent=1) + '\n')


if __name__ == '__main__':
    run_tool(main)
