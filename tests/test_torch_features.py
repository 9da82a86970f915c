"""Every way of torch to use a model that ``torch_features`` lists, on our backbone."""

import importlib.util
import re
import threading

import pytest
import torch
import torch_features
from torch.utils._python_dispatch import TorchDispatchMode
from torch_features import FEATURES, images, ours, randomised

from swinv2_mm.core import SwinTransformerV2
from swinv2_mm.core.attention import BACKENDS
from swinv2_mm.core.tensor_cache import TensorCache

# Most of a second each, or more.
SLOW = {
    '`make_fx`',
    '`torch.export`',
    '`torch.export`, open batch, height and width',
    '`torch.compile(fullgraph=True)`',
}
NEEDS = {
    'LoRA by `peft` on all four: trains, merges': 'peft',
    '`torchao`, int8 weights': 'torchao',
}
# What a sentence of docs/core.md says is impossible.
IMPOSSIBLE = {'`torch.jit.script`'}


def parameters():
    for name in FEATURES:
        marks = [pytest.mark.slow] if name in SLOW else []
        needed = NEEDS.get(name)
        if needed and importlib.util.find_spec(needed) is None:
            marks.append(pytest.mark.skip(reason=f'{needed} is not installed'))
        yield pytest.param(name, marks=marks, id=re.sub(r'\W+', '-', name).strip('-'))


@pytest.mark.parametrize('name', parameters())
def test_feature(name):
    if name in IMPOSSIBLE:
        assert torch_features.failure(ours(), name) is not None, 'docs/core.md says it cannot be'
    else:
        FEATURES[name](ours())


@pytest.mark.parametrize('attention', ['eager', 'sequential', 'flex', 'triton'])
@pytest.mark.parametrize(
    'name',
    ['`torch.jit.trace`, saved and loaded', '`torch.fx.symbolic_trace`', 'double backward',
     '`torch.func.jvp`', '`vmap(grad)`: a gradient per image'],
)  # fmt: skip
def test_transforms_of_every_backend(name, attention):
    FEATURES[name](ours(attention=attention))


@pytest.mark.parametrize('kind', ['linear_cpb', 'table'])
@pytest.mark.parametrize(
    'name',
    ['`torch.fx.symbolic_trace`', '`torch.func.grad` of `functional_call`',
     'weights changed through `.data` in eval', '`quantize_dynamic`, int8'],
)  # fmt: skip
def test_every_position_bias(name, kind):
    FEATURES[name](ours(position_bias=kind, pretrained_window_sizes=6))


@pytest.mark.parametrize(
    'name', ['`torch.fx.symbolic_trace`', '`vmap(grad)`: a gradient per image']
)
def test_checkpointed_blocks(name):
    FEATURES[name](ours(with_cp=True))


@pytest.mark.parametrize('attention', list(BACKENDS))
@pytest.mark.parametrize('side', [64, 100])
def test_a_batch_of_no_image(attention, side):
    """A last shard may be empty: every parameter gets a gradient, of zeros."""
    arch = {'embed_dim': 8, 'depths': (2, 1), 'num_heads': (1, 2)}
    settings = {'window_size': 7, 'out_indices': (0, 1), 'attention': attention}
    model = SwinTransformerV2(arch, **settings)
    outs = model(torch.randn(0, 3, side, side))
    shapes = [tuple(out.shape) for out in model(torch.randn(1, 3, side, side))]
    assert [tuple(out.shape) for out in outs] == [(0, *shape[1:]) for shape in shapes]
    sum(out.sum() for out in outs).backward()
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters())
    with torch.no_grad():
        assert [len(out) for out in model.eval()(torch.randn(0, 3, side, side))] == [0, 0]


def test_graph_of_fx_ignores_autocast_in_attention():
    """As the model does: logits and bias stay in float32."""
    subject = ours()
    model = subject.build().eval()
    graph = torch.fx.symbolic_trace(model)

    seen = set()

    class Record(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if any(name in str(func) for name in ('scaled_dot_product', 'bmm')):
                seen.add(args[0].dtype)
            return func(*args, **(kwargs or {}))

    with torch.no_grad(), torch.autocast('cpu', torch.bfloat16), Record():
        subject.run(graph, images())
    assert seen == {torch.float32}


def test_hooks_of_the_bias_network_are_called():
    model = ours().build().eval()
    called = []
    handles = [
        module.register_forward_hook(lambda *_: called.append(1))
        for name, module in model.named_modules()
        if name.endswith('cpb_mlp.0')
    ]
    for _ in range(2):
        with torch.no_grad():
            model(images())
    assert len(called) == 2 * len(handles) == 6


def test_hooks_on_all_modules_are_called():
    model, called = ours().build(), []
    handle = torch.nn.modules.module.register_module_forward_hook(
        lambda module, *_: called.append(module)
    )
    try:
        model(images())
    finally:
        handle.remove()
    linears = {m for n, m in model.named_modules() if type(m) is torch.nn.Linear}
    # The last merging leads nowhere.
    assert linears <= set(called)


def test_what_is_kept_in_a_transform_does_not_leave_it():
    """Constants that are first met inside of ``vmap`` or ``grad`` serve a plain call after it."""
    subject = ours(window_size=(3, 5))
    model, x = subject.build().eval(), images(side=(44, 52))
    torch.func.vmap(lambda image: subject.run(model, image))(x[:, None])
    torch.func.grad(lambda x: subject.run(model, x).sum())(x)
    subject.run(model, x).sum().backward()
    with torch.no_grad():
        assert subject.run(model, x).isfinite().all()


def test_threads_share_a_store_that_is_too_small(monkeypatch):
    """8 threads of 50 forwards on maps of several sizes; entries come and go all the time."""
    from swinv2_mm.core import position_bias, window_partition
    from swinv2_mm.core.attention import mask

    store = TensorCache(max_bytes=6_000)
    for module in (mask, position_bias):
        monkeypatch.setattr(module, 'CONSTANTS', store)
    monkeypatch.setattr(window_partition, 'TOKENS', store)
    arch = {'embed_dim': 4, 'depths': (2,), 'num_heads': (1,)}
    model = SwinTransformerV2(arch, window_size=3, out_indices=(0,)).eval()
    randomised(model)
    inputs = [images(i, batch=1, side=side) for i, side in enumerate((20, 28, 32, (20, 32)))]
    with torch.no_grad():
        expected = [model(x)[0] for x in inputs]
    wrong = []

    def work(first: int) -> None:
        try:
            with torch.no_grad():
                for step in range(50):
                    i = (first + step) % len(inputs)
                    if not torch.equal(model(inputs[i])[0], expected[i]):
                        wrong.append(i)
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    largest = max(entry.nbytes for entry in store._entries.values())
    assert store.num_bytes <= max(store.max_bytes, largest)


def test_the_table_of_the_document_is_of_these_checks():
    found = torch_features.rows_of_document()
    assert list(found) == list(FEATURES)
    assert {name for name, says in found.items() if says != 'yes'} == IMPOSSIBLE
