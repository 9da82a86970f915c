"""Windows, segments, masks, position biases, and what is kept between calls."""

import functools
import gc
import itertools
import math
import random

import oracle
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode

from swinv2_mm.core import SwinTransformerV2, position_bias, tensor_cache, window_partition
from swinv2_mm.core.attention import BACKENDS, WindowAttention, grouped, mask, window_attention
from swinv2_mm.core.attention.mask import attention_mask
from swinv2_mm.core.position_bias import cpb_table, pairwise_bias, relative_coords
from swinv2_mm.core.tensor_cache import TensorCache
from swinv2_mm.core.window_partition import (
    from_windows,
    to_windows,
    window_grid,
    window_tokens,
)

NARROW = {'embed_dim': 8, 'depths': (4, 2), 'num_heads': (1, 2)}

each_backend = pytest.mark.parametrize('backend', list(BACKENDS))


def random_grids(count: int):
    rng = random.Random(0)
    for _ in range(count):
        size = rng.randint(1, 20), rng.randint(1, 20)
        window = rng.randint(1, 8), rng.randint(1, 8)
        yield window_grid(
            size,
            window=window,
            shifted=rng.random() < 0.7,
            tiling=rng.choice(['fixed', 'balanced']),
        )


def tokens(size: tuple[int, int]) -> list[tuple[int, int]]:
    return list(itertools.product(range(size[0]), range(size[1])))


def interval(token: int, side: int, shift: int) -> int:
    """Number the pieces that an axis is cut into. Shifted windows start at shift, shift + M, ...

    This is what rolling and masking amount to, stated without either.
    """
    return (token - shift) // side


# --- geometry -----------------------------------------------------------------------------------


def test_merging_undoes_partitioning():
    for grid in random_grids(200):
        x = torch.randn(2, *grid.size, 3)
        cut = to_windows(x, grid=grid)
        (nh, nw), (mh, mw) = grid.num_windows, grid.window
        assert cut.shape == (2, nh, mh, nw, mw, 3)
        assert torch.equal(from_windows(cut, grid=grid), x)


def test_partitioning_puts_each_token_in_its_window():
    """The last window along a shifted axis also holds the piece before the first."""
    for grid in random_grids(100):
        expected = {place: set() for place in tokens(grid.num_windows)}
        for number, token in enumerate(tokens(grid.size), start=1):
            pieces = map(interval, token, grid.window, grid.shift)
            place = (i % count for i, count in zip(pieces, grid.num_windows, strict=True))
            expected[tuple(place)].add(number)
        numbers = torch.arange(1, 1 + math.prod(grid.size)).reshape(1, *grid.size, 1)
        cut = to_windows(numbers, grid=grid)
        for (i, j), members in expected.items():
            found = cut[0, i, :, j].flatten().tolist()
            # Padding is zero.
            assert sorted(n for n in found if n) == sorted(members)


def test_partitioning_copies_nothing_where_nothing_moves():
    x = torch.randn(1, 8, 12, 3)
    grid = window_grid((8, 12), window=(4, 4), shifted=False, tiling='fixed')
    assert to_windows(x, grid=grid).data_ptr() == x.data_ptr()


@pytest.mark.parametrize('shifted', [False, True])
def test_a_window_that_covers_an_axis_is_clipped_to_it_and_does_not_shift(shifted):
    for length, side in itertools.product(range(1, 12), range(1, 10)):
        grid = window_grid((length, 30), window=(side, 7), shifted=shifted, tiling='fixed')
        other = window_grid((30, length), window=(7, side), shifted=shifted, tiling='fixed')
        if length <= side:
            assert (grid.window[0], grid.shift[0], grid.padded_size[0]) == (length, 0, length)
        else:
            assert (grid.window[0], grid.shift[0]) == (side, side // 2 if shifted else 0)
            assert grid.padded_size[0] == math.ceil(length / side) * side
        # The other axis keeps its window, and the axes are alike.
        assert (grid.window[1], grid.shift[1]) == (7, 3 if shifted else 0)
        assert grid.nominal_window == (side, 7)
        for name in ('window', 'shift', 'padded_size', 'num_windows'):
            assert getattr(grid, name) == getattr(other, name)[::-1]


def test_balanced_tiling_pads_least_with_as_few_windows():
    for length, side in itertools.product(range(1, 50), range(1, 14)):
        fixed, balanced = (
            window_grid((length, length), window=(side, side), shifted=True, tiling=tiling)
            for tiling in ('fixed', 'balanced')
        )
        assert balanced.window[0] <= side
        assert balanced.num_windows == fixed.num_windows
        paddings = {
            s * fixed.num_windows[0] - length
            for s in range(1, side + 1)
            if s * fixed.num_windows[0] >= length
        }
        assert balanced.padded_size[0] - length == min(paddings)
        assert balanced.shift[0] == (balanced.window[0] // 2 if length > side else 0)
        assert balanced.nominal_window == (side, side)


def test_unknown_tiling_is_refused():
    with pytest.raises(ValueError, match="'fixed' or 'balanced', got 'even'"):
        window_grid((9, 9), window=(4, 4), shifted=False, tiling='even')


def test_window_tokens_are_those_that_to_windows_gathers():
    for grid in random_grids(100):
        count = 2 * math.prod(grid.size)
        numbers = torch.arange(1, 1 + count).reshape(2, *grid.size, 1)
        cut = to_windows(numbers, grid=grid)
        for row, column in itertools.product(grid.axis_runs(0), grid.axis_runs(1)):
            device = torch.device('cpu')
            tokens = window_tokens(row, columns=column, grid=grid, batch=2, device=device)
            run = cut[:, row.start : row.stop, :, column.start : column.stop]
            expected = run.permute(0, 1, 3, 2, 4, 5).reshape(tokens.shape)
            # Padding is zero there and the number after the last here.
            assert torch.equal((tokens + 1) % (count + 1), expected)


# --- segments and masks -------------------------------------------------------------------------


def test_segment_ids_say_what_belongs_together():
    """By brute force: within a window of the rolled map, by the intervals of both axes."""
    for grid in random_grids(200):
        ids = grid.segment_ids()
        assert ids.shape == grid.padded_size
        places = tokens(grid.padded_size)
        pieces = {}
        for place in places:
            sources = [
                (p + shift) % padded
                for p, shift, padded in zip(place, grid.shift, grid.padded_size, strict=True)
            ]
            real = all(s < length for s, length in zip(sources, grid.size, strict=True))
            pieces[place] = tuple(map(interval, sources, grid.window, grid.shift)) if real else None
        by_window = itertools.groupby(
            sorted(places, key=lambda p: (p[0] // grid.window[0], p[1] // grid.window[1])),
            key=lambda p: (p[0] // grid.window[0], p[1] // grid.window[1]),
        )
        for _, members in by_window:
            members = list(members)
            for one, other in itertools.product(members[:: len(members) // 4 + 1], members):
                assert (ids[one] == ids[other]) == (pieces[one] == pieces[other])
                assert (ids[other] == -1) == (pieces[other] is None)


def test_axis_runs_cover_all_windows_in_order_and_are_few():
    for grid in random_grids(200):
        for axis in (0, 1):
            runs = grid.axis_runs(axis)
            assert [run.start for run in runs] == [0, *(run.stop for run in runs[:-1])]
            assert runs[-1].stop == grid.num_windows[axis]
            assert len(runs) <= 3
            assert all(len(run.origins) == grid.window[axis] for run in runs)


def test_masks_by_their_definition():
    """0 inside a segment, -100 across the seam, -inf from a real query to a padded key."""
    kwargs = {'device': torch.device('cpu'), 'dtype': torch.float32}
    for grid in random_grids(60):
        ids = grid.segment_ids().reshape(
            grid.num_windows[0], grid.window[0], grid.num_windows[1], grid.window[1]
        )
        for row, column in itertools.product(grid.axis_runs(0), grid.axis_runs(1)):
            mask = attention_mask((row.origins, column.origins), **kwargs)
            for i, j in itertools.product(
                range(row.start, row.stop), range(column.start, column.stop)
            ):
                here = ids[i, :, j].flatten()
                query, key = here[:, None], here[None, :]
                truth = torch.where(query == key, 0.0, -100.0)
                truth[(query != -1) & (key == -1)] = -math.inf
                if mask is None:
                    assert (truth == 0).all()
                else:
                    assert torch.equal(mask, truth)
                    # No query is without a key: its softmax would be NaN.
                    assert (mask > -math.inf).any(1).all()


def random_attention(backend: str, window: tuple[int, int]) -> WindowAttention:
    module = WindowAttention(
        8,
        num_heads=2,
        position_bias='log_cpb',
        pretrained_window_size=window,
        backend=BACKENDS[backend],
    ).double()
    oracle.randomise(module, seed=0)
    # Moderate logits: the seam's penalty of -100 then leaves nothing that could be measured.
    with torch.no_grad():
        module.logit_scale.fill_(math.log(10))
    return module


@each_backend
@pytest.mark.parametrize('tiling', ['fixed', 'balanced'])
@pytest.mark.parametrize('shifted', [False, True])
@pytest.mark.parametrize('size', [(9, 9), (7, 10), (8, 8), (3, 11)], ids=str)
def test_a_token_changes_its_own_segment_and_nothing_else(size, shifted, tiling, backend):
    window = (4, 4) if size != (9, 9) else (8, 8)
    module = random_attention(backend, window)
    grid = window_grid(size, window=window, shifted=shifted, tiling=tiling)

    def piece(token):
        return tuple(map(interval, token, grid.window, grid.shift))

    x = torch.randn(1, *size, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    every = tokens(size)
    # One copy of the map per token, with that token changed.
    changed = x.repeat(len(every), 1, 1, 1)
    for i, (row, column) in enumerate(every):
        changed[i, row, column] = -3 * changed[i, row, column] + 5
    with torch.no_grad():
        # Measured beyond the segment: 2e-15, the rounding.
        change = (module(changed, grid) - module(x, grid)).abs().amax(-1)
    for i, one in enumerate(every):
        for other in every:
            if piece(one) == piece(other):
                assert change[i][other] > 1e-9, (one, other)
            else:
                assert change[i][other] < 1e-13, (one, other)


def test_the_content_of_padding_does_not_matter(monkeypatch):
    """Neither forward nor backward, where to_windows cuts."""
    grid = window_grid((9, 10), window=(8, 4), shifted=True, tiling='fixed')
    module = random_attention('eager', (8, 4))
    x = torch.randn(2, 9, 10, 8, dtype=torch.float64).requires_grad_()

    def run():
        module.zero_grad()
        out = module(x, grid)
        parameters = list(module.parameters())
        return [out, *torch.autograd.grad(out.square().sum(), [x, *parameters])]

    clean = run()
    pad, calls = torch.nn.functional.pad, []

    def pad_with_rubbish(x, sides):
        calls.append(sides)
        return pad(x, sides, value=7.0)

    monkeypatch.setattr(window_partition.F, 'pad', pad_with_rubbish)
    dirty = run()
    assert calls == [(0, 0, 0, 2, 0, 7)]
    for a, b in zip(clean, dirty, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


# --- position bias ------------------------------------------------------------------------------


def random_mlp(num_heads: int = 3) -> torch.nn.Sequential:
    module = WindowAttention(
        2 * num_heads,
        num_heads=num_heads,
        position_bias='log_cpb',
        pretrained_window_size=(1, 1),
        backend=BACKENDS['eager'],
    )
    oracle.randomise(module, seed=0)
    return module.cpb_mlp


def bias_by_offset(window, reference, kind='log_cpb') -> dict:
    coords = relative_coords(
        window,
        pretrained_window_size=reference,
        kind=kind,
        device=torch.device('cpu'),
        dtype=torch.float64,
    )
    with torch.no_grad():
        table = cpb_table(coords, mlp=random_mlp())
    mh, mw = window
    offsets = itertools.product(range(1 - mh, mh), range(1 - mw, mw))
    assert table.shape == (3, (2 * mh - 1) * (2 * mw - 1))
    return dict(zip(offsets, table.t(), strict=True))


@pytest.mark.parametrize('kind', ['log_cpb', 'linear_cpb'])
def test_the_bias_of_an_offset_is_the_same_at_every_window_that_holds_it(kind):
    reference = (8, 6)
    largest = bias_by_offset((16, 24), reference, kind)
    for window in [(1, 1), (2, 7), (8, 6), (7, 7), (16, 16), (12, 24)]:
        for offset, bias in bias_by_offset(window, reference, kind).items():
            torch.testing.assert_close(bias, largest[offset], rtol=1e-13, atol=1e-13)
    # The bias does vary, and vary with the reference: the above is no empty statement.
    assert largest[3, -2].sub(largest[-3, 2]).abs().max() > 0.1
    other = bias_by_offset((16, 24), (16, 24), kind)
    assert largest[3, -2].sub(other[3, -2]).abs().max() > 0.01


def test_coordinates_by_hand():
    kwargs = {'device': torch.device('cpu'), 'dtype': torch.float64}
    log = relative_coords((3, 1), pretrained_window_size=(9, 5), kind='log_cpb', **kwargs)
    # u = 8 * (-2 ... 2) / 8; sign(u) * log2(1 + |u|) / 3.
    vertical = [-math.log2(3) / 3, -1 / 3, 0, 1 / 3, math.log2(3) / 3]
    torch.testing.assert_close(log, torch.tensor([[v, 0.0] for v in vertical]).double())
    linear = relative_coords((1, 3), pretrained_window_size=(9, 5), kind='linear_cpb', **kwargs)
    horizontal = [-0.5, -0.25, 0, 0.25, 0.5]
    torch.testing.assert_close(linear, torch.tensor([[0.0, v] for v in horizontal]).double())
    # The farthest offset of the reference window: u = 8.
    edge = relative_coords((7, 12), pretrained_window_size=(7, 12), kind='log_cpb', **kwargs)
    torch.testing.assert_close(edge[-1], torch.full((2,), math.log2(9) / 3).double())
    assert (
        relative_coords((4, 4), pretrained_window_size=(1, 1), kind='log_cpb', **kwargs)
        .isfinite()
        .all()
    )


def farthest(window, reference, kind):
    coords = relative_coords(
        (window, window),
        pretrained_window_size=(reference, reference),
        kind=kind,
        device=torch.device('cpu'),
        dtype=torch.float64,
    )
    assert coords.max() == -coords.min()
    return coords.max().item()


def test_log_spaced_coordinates_extrapolate_less():
    """The paper's section 3.3: from window 8 to 16, 1.14 times the range against 0.33 times."""
    near, far = (farthest(window, 8, 'linear_cpb') for window in (8, 16))
    assert far / near - 1 == pytest.approx(8 / 7) and round(far / near - 1, 2) == 1.14
    # The text takes logarithms of offsets in tokens: a reference window of 9 makes 8 / (W - 1) = 1.
    near, far = (farthest(window, 9, 'log_cpb') * 3 * math.log(2) for window in (8, 16))
    assert (round(near, 3), round(far, 3)) == (2.079, 2.773)
    assert round(far / near - 1, 2) == 0.33
    # With the offsets scaled as in the released weights it is a little less.
    near, far = (farthest(window, 8, 'log_cpb') for window in (8, 16))
    assert round(far / near - 1, 2) == 0.32


def test_pairwise_bias_looks_up_query_minus_key():
    for mh, mw in [(1, 1), (3, 3), (2, 5), (4, 1)]:
        offsets = (2 * mh - 1) * (2 * mw - 1)
        table = torch.arange(2 * offsets).reshape(2, offsets)
        pairs = pairwise_bias(table, window=(mh, mw))
        assert pairs.shape == (2, mh * mw, mh * mw)
        for q, k in itertools.product(range(mh * mw), repeat=2):
            dy, dx = q // mw - k // mw, q % mw - k % mw
            at = (dy + mh - 1) * (2 * mw - 1) + dx + mw - 1
            assert torch.equal(pairs[:, q, k], table[:, at])


# --- the store of constants ---------------------------------------------------------------------


@pytest.fixture
def constants(monkeypatch) -> TensorCache:
    """An empty store in place of the process-wide ones."""
    store = TensorCache(max_bytes=2**28)
    for module in (mask, position_bias):
        assert module.CONSTANTS is not store
        monkeypatch.setattr(module, 'CONSTANTS', store)
    monkeypatch.setattr(window_partition, 'TOKENS', store)
    return store


def test_store_builds_once_and_forgets_the_least_recently_used():
    store, built = TensorCache(max_bytes=100), []

    def get(key: str, num_bytes: int = 40) -> torch.Tensor:
        def build() -> torch.Tensor:
            built.append(key)
            return torch.zeros(num_bytes, dtype=torch.int8)

        return store.get(key, build)

    first = get('a')
    assert get('a') is first
    get('b')
    get('a')
    assert (built, store.num_bytes) == (['a', 'b'], 80)
    # 120 bytes are too many: b, not a, was used longest ago.
    get('c')
    assert store.num_bytes == 80
    assert get('a') is first
    get('b')
    assert built == ['a', 'b', 'c', 'b']
    # An entry that is larger than the budget displaces all others, and is still served.
    assert get('huge', 500).nbytes == 500
    assert store.num_bytes == 500
    get('a')
    assert (built[-1], store.num_bytes) == ('a', 40)


def test_store_keeps_what_a_captured_graph_reads(monkeypatch):
    store = TensorCache(max_bytes=100)
    get = functools.partial(store.get, build=lambda: torch.zeros(60, dtype=torch.int8))
    read = get('a')
    monkeypatch.setattr(tensor_cache, 'is_capturing', lambda: True)
    assert get('a') is read
    monkeypatch.setattr(tensor_cache, 'is_capturing', lambda: False)
    for key in ('b', 'c', 'b', 'd'):
        get(key)
    assert get('a') is read
    assert store.num_bytes == 120


def test_masks_of_other_devices_are_compared_there(constants):
    """N numbers are cached there, not N x N."""
    grid = window_grid((9, 13), window=(8, 4), shifted=True, tiling='fixed')
    row, column = grid.axis_runs(0)[-1], grid.axis_runs(1)[-1]
    for _ in range(2):
        kwargs = {'device': torch.device('meta'), 'dtype': torch.float16}
        found = attention_mask((row.origins, column.origins), **kwargs)
        assert (found.shape, found.dtype, found.device.type) == ((32, 32), torch.float16, 'meta')
    assert constants.num_bytes == 32


def test_constants_exist_once_for_all_blocks(constants, monkeypatch):
    """The same objects in every block, model and call."""
    seen = {'mask': {}, 'tokens': {}, 'coords': {}}

    def record(kind, function):
        def wrapper(*args, **kwargs):
            out = function(*args, **kwargs)
            if out is not None:
                key = (*map(str, args), *map(str, kwargs.values()))
                seen[kind].setdefault(key, []).append(out)
            return out

        return wrapper

    for kind, name in (('mask', 'attention_mask'), ('tokens', 'window_tokens')):
        original = getattr(grouped, name)
        monkeypatch.setattr(grouped, name, record(kind, original))
    original = position_bias.relative_coords
    monkeypatch.setattr(position_bias, 'relative_coords', record('coords', original))
    # Maps of 17x14 and 9x7 tokens: padding and seams in both stages.
    x = torch.randn(1, 3, 66, 55)
    for _ in range(2):
        model = SwinTransformerV2(NARROW, window_size=4, out_indices=(0, 1))
        model(x)
        model(x)
    for kind, found in seen.items():
        assert found, kind
        for outs in found.values():
            assert len({id(out) for out in outs}) == 1
        # Each of at least two blocks in two models and two calls.
        assert max(map(len, found.values())) >= 8
    num_distinct = sum(map(len, seen.values()))
    assert len(constants._entries) == num_distinct
    assert constants.num_bytes == sum(entry.nbytes for entry in constants._entries.values())


def test_no_pairwise_index_stays_alive(constants):
    """N x N integers per block are what other implementations keep."""
    gc.collect()
    before = [o for o in gc.get_objects() if isinstance(o, torch.Tensor)]
    known = {id(tensor) for tensor in before}
    model = SwinTransformerV2(NARROW, window_size=8, out_indices=(0, 1)).eval()
    # Maps of 13x17 and 7x9 tokens.
    x = torch.randn(1, 3, 50, 66)
    model(x)
    with torch.no_grad():
        model(x)
    gc.collect()
    alive = [o for o in gc.get_objects() if isinstance(o, torch.Tensor) and id(o) not in known]
    assert {id(p) for p in model.parameters()} <= {id(tensor) for tensor in alive}
    n = 64
    whole = [t for t in alive if not t.is_floating_point() and t.numel() >= n * n]
    assert whole == []
    # The masks of whole windows are there, once; no bias is kept as a matrix.
    squares = {id(t) for t in alive if t.shape[-2:] == (n, n)}
    masks = {id(t) for t in constants._entries.values() if t.shape == (n, n)}
    assert squares == masks
    assert masks


@each_backend
def test_training_after_inference_mode(constants, backend):
    """Constants and kept tables made in inference mode must not reach autograd."""
    model = SwinTransformerV2(NARROW, window_size=4, out_indices=(0, 1), attention=backend)
    oracle.randomise(model, seed=0)
    x = torch.randn(1, 3, 66, 55)
    with torch.inference_mode():
        first = model.eval()(x)
    assert len(constants._entries) > 0
    assert not any(entry.is_inference() for entry in constants._entries.values())
    # Straight on in eval, with and without gradients, frozen and not.
    with torch.no_grad():
        second = model(x)
    model.layers[0].requires_grad_(False)
    outs = model(x)
    sum(out.sum() for out in outs).backward()
    model.requires_grad_(True)
    third = model.train()(x)
    sum(out.sum() for out in third).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())
    for one, other in zip(first, second, strict=True):
        torch.testing.assert_close(one.clone(), other)


def test_a_run_on_fake_tensors_leaves_none_behind(constants):
    """Memory estimators run a model so; real runs follow in the same process."""
    model = SwinTransformerV2(NARROW, window_size=4, out_indices=(0, 1))
    x = torch.randn(1, 3, 66, 55)
    with FakeTensorMode(allow_non_fake_inputs=True):
        model(x)
    assert all(type(entry) is torch.Tensor for entry in constants._entries.values())
    assert all(type(out) is torch.Tensor for out in model(x))


# --- bias tables kept in eval -------------------------------------------------------------------


@pytest.fixture
def runs(monkeypatch) -> list:
    """One entry per run of a bias network."""
    runs = []

    def counted(coords, *, mlp):
        runs.append(len(coords))
        return cpb_table(coords, mlp=mlp)

    monkeypatch.setattr(window_attention, 'cpb_table', counted)
    return runs


def random_model(seed: int = 0, **settings) -> SwinTransformerV2:
    settings = {'window_size': 4, 'out_indices': (0, 1), 'drop_path_rate': 0.0, **settings}
    model = SwinTransformerV2(NARROW, **settings)
    oracle.randomise(model, seed=seed)
    return model


IMAGE = torch.randn(1, 3, 66, 55, generator=torch.Generator().manual_seed(0))
NUM_BLOCKS = 6
SMALL_GRID = window_grid((9, 9), window=(4, 4), shifted=False, tiling='fixed')


def assert_current(model: SwinTransformerV2) -> None:
    """Compare with a model that has never run before."""
    fresh = random_model(1, window_size=model.window_sizes).eval()
    fresh.load_state_dict(model.state_dict())
    with torch.no_grad():
        for actual, truth in zip(model(IMAGE), fresh(IMAGE), strict=True):
            assert torch.equal(actual, truth)


@pytest.mark.parametrize('mode', [torch.no_grad, torch.inference_mode])
def test_bias_network_runs_once_in_eval(runs, mode):
    model = random_model().eval()
    with mode():
        first = model(IMAGE)
        assert len(runs) == NUM_BLOCKS
        second = model(IMAGE)
        assert len(runs) == NUM_BLOCKS
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize('backend', ['auto', 'sequential'])
def test_a_second_forward_computes_no_constant_again(constants, backend):
    """Token numbers, segments, masks, coordinates, bias tables."""
    model = random_model(attention=backend).eval()
    names = set()

    class Record(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            names.add(func.overloadpacket.__name__)
            return func(*args, **(kwargs or {}))

    makers = {'arange', 'where', 'log2', 'sigmoid'}
    with torch.no_grad():
        with Record():
            model(IMAGE)
        assert makers <= names
        names.clear()
        with Record():
            model(IMAGE)
    assert not makers & names
    # And what it does compute has been seen.
    assert 'index_select' in names


def test_bias_network_runs_always_where_it_learns(runs):
    model = random_model()
    for mode in (True, False):
        runs.clear()
        model.train(mode)
        model(IMAGE)
        outs = model(IMAGE)
        assert len(runs) == 2 * NUM_BLOCKS
        sum(out.square().sum() for out in outs).backward()
        for name, p in model.named_parameters():
            assert p.grad is not None, name
            if 'cpb_mlp' in name:
                assert p.grad.abs().max() > 0, name


def test_bias_network_of_a_frozen_model_runs_once_in_eval(runs):
    model = random_model().eval().requires_grad_(False)
    model(IMAGE)
    model(IMAGE)
    assert len(runs) == NUM_BLOCKS


@pytest.mark.parametrize('mode', [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize('kind', ['log_cpb', 'table'])
def test_kept_tables_follow_the_weights(runs, mode, kind):
    """Every way in which weights or windows change."""
    model = random_model(position_bias=kind).eval()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    swapped = {n: 1.5 * p.detach() for n, p in model.named_parameters()}

    def step():
        sum(out.square().mean() for out in model(IMAGE)).backward()
        optimizer.step()

    def load():
        with mode():
            model.load_state_dict(random_model(2, position_bias=kind).state_dict())

    def load_other_reference():
        weights = random_model(3, window_size=5, position_bias=kind).state_dict()
        model.load_state_dict(weights)

    def average():
        # As a hook that exchanges the weights for their average: it goes unnoticed by itself.
        for name, p in model.named_parameters():
            if p.shape == swapped[name].shape:
                p.data.copy_(swapped[name])
        model.train()
        model.eval()

    def in_place():
        with torch.no_grad():
            for p in model.parameters():
                p.mul_(1.1)

    def new_data():
        for p in model.parameters():
            p.data = p.data * 1.1

    def window():
        model.set_window_size((6, (3, 5)))

    def window_back():
        model.set_window_size(4)

    changes = [step, load, in_place, average, new_data, window, step, window_back, load]
    for change in [*changes, load_other_reference, average]:
        with mode():
            before = model(IMAGE)
        change()
        runs.clear()
        with mode():
            after = model(IMAGE)
            model(IMAGE)
        if kind == 'log_cpb':
            assert len(runs) == NUM_BLOCKS, change
        assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True)), change
        fresh = random_model(1, window_size=model.window_sizes, position_bias=kind).eval()
        fresh.load_state_dict(model.state_dict())
        with torch.no_grad():
            for actual, truth in zip(after, fresh(IMAGE), strict=True):
                assert torch.equal(actual, truth), change


@pytest.mark.parametrize('kind', ['log_cpb', 'table'])
def test_kept_tables_follow_the_map_and_the_window(kind):
    """Maps of 5x5, 3x7 and 17x14 tokens clip windows in their own ways."""
    model = random_model(position_bias=kind).eval()
    weights = model.state_dict()
    images = [torch.randn(1, 3, *size) for size in [(20, 20), (12, 28), (66, 55)]]
    for window, x in itertools.product([4, 6, 8], images):
        model.set_window_size(window)
        fresh = random_model(1, window_size=window, position_bias=kind).eval()
        fresh.load_state_dict(weights)
        with torch.no_grad():
            for actual, truth in zip(model(x), fresh(x), strict=True):
                assert torch.equal(actual, truth)


def test_kept_tables_of_inference_mode_stay_in_it():
    module = random_attention('eager', (4, 4)).eval()
    with torch.inference_mode():
        module.bias_table(SMALL_GRID)
    with torch.no_grad():
        assert not module.bias_table(SMALL_GRID).is_inference()


def test_kept_tables_follow_weights_made_in_inference_mode():
    """Such tensors count no versions, so a change cannot be seen from them."""
    with torch.inference_mode():
        model = random_model().eval()
        model(IMAGE)
        model.load_state_dict(random_model(2).state_dict())
        assert_current(model)


@pytest.mark.parametrize('way', ['assign', 'functional_call'])
def test_kept_tables_are_not_mistaken_for_others_at_a_reused_address(way):
    """A freed parameter's memory soon holds another: an address alone identifies nothing."""
    module = random_attention('eager', (4, 4)).eval()
    weights = {name: p.detach().clone() for name, p in module.named_parameters()}
    x = torch.randn(1, 9, 9, 8, dtype=torch.float64)
    for step in range(60):
        params = {name: p * (1 + 0.01 * step) for name, p in weights.items()}
        fresh = random_attention('eager', (4, 4)).eval()
        fresh.load_state_dict(params)
        with torch.no_grad():
            if way == 'assign':
                module.load_state_dict(params, assign=True)
                actual = module(x, SMALL_GRID)
            else:
                actual = functional_call(module, params, (x, SMALL_GRID))
            torch.testing.assert_close(actual, fresh(x, SMALL_GRID), rtol=1e-9, atol=1e-9)
        del params, fresh, actual


def test_the_number_of_kept_tables_is_bounded():
    module = random_attention('eager', (4, 4)).eval()
    with torch.no_grad():
        for size in itertools.product(range(1, 6), range(1, 6)):
            grid = window_grid(size, window=(4, 4), shifted=False, tiling='fixed')
            module.bias_table(grid)
    assert 0 < len(module._tables) <= 8


def test_a_window_that_no_map_exceeds_is_global_attention():
    model = SwinTransformerV2(
        NARROW, window_size=(3, 1024), pretrained_window_sizes=(3, 4), out_indices=(1,)
    ).eval()
    oracle.randomise(model, seed=0)
    stage = model.layers[1]
    for size in ((5, 9), (1, 4)):
        x = torch.randn(2, *size, 16)
        expected = x
        for block in stage.blocks:
            expected = block(
                expected, window_grid(size, window=size, shifted=False, tiling='fixed')
            )
        assert torch.equal(stage(x), expected)
        # A change of one corner reaches the others.
        changed = x.clone()
        changed[:, 0, 0] += 1
        assert (stage(changed) != expected)[:, -1, -1].all()
