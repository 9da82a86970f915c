"""What torch's users do with a model, each as a check that any SwinV2 passes or fails.

``python tests/torch_features.py`` writes the table of ``docs/core.md``: our backbone in its default
settings beside timm's.
"""

from __future__ import annotations

import copy
import io
import pickle
import re
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp, vmap
from torch.nn.utils import parametrizations, parametrize, prune

DOCUMENT = Path(__file__).parents[1] / 'docs/core.md'
DEPTHS, NUM_BLOCKS = (2, 1), 3
LAYERS = ('attn.qkv', 'attn.proj', 'mlp.fc1', 'mlp.fc2')


class Subject(NamedTuple):
    """A model under test.

    Attributes:
        build: Makes it, with random weights that are the same each time, in training mode.
        last_map: Takes one tensor from what it returns.
    """

    name: str
    build: Callable[[], nn.Module]
    last_map: Callable[[object], Tensor]

    def run(self, model: nn.Module, x: Tensor) -> Tensor:
        return self.last_map(model(x))


def randomised(model: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


def ours(**settings) -> Subject:
    from swinv2_mm.core import SwinTransformerV2

    def build() -> nn.Module:
        torch.manual_seed(0)
        arch = {'embed_dim': 16, 'depths': DEPTHS, 'num_heads': (1, 2)}
        settings_ = {'window_size': 4, 'out_indices': (1,), 'drop_path_rate': 0.0, **settings}
        return randomised(SwinTransformerV2(arch, **settings_))

    return Subject('swinv2_mm', build, lambda outs: outs[-1])


def timm() -> Subject:
    from timm.models.swin_transformer_v2 import SwinTransformerV2

    def build() -> nn.Module:
        torch.manual_seed(0)
        model = SwinTransformerV2(
            img_size=32, window_size=4, embed_dim=16, depths=DEPTHS, num_heads=(1, 2),
            num_classes=5, drop_path_rate=0.0,
        )  # fmt: skip
        return randomised(model)

    return Subject('timm', build, lambda out: out)


def images(seed: int = 0, *, batch: int = 2, side: int | tuple[int, int] = 32) -> Tensor:
    size = side if isinstance(side, tuple) else (side, side)
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(seed))


def close(actual: Tensor, expected: Tensor, *, tolerance: float = 1e-4) -> None:
    """Relative to the largest value: orders of additions differ."""
    scale = expected.abs().max()
    assert scale > 0
    error = (actual - expected).abs().max() / scale
    assert error < tolerance, f'differs by {error:.1e} of the largest value'


def blocks(model: nn.Module) -> list[nn.Module]:
    found = [m for m in model.modules() if hasattr(m, 'attn') and hasattr(m, 'mlp')]
    assert len(found) == NUM_BLOCKS
    return found


# --- tracers ------------------------------------------------------------------------------------


def jit_trace(subject: Subject) -> None:
    model = subject.build().eval()
    traced = torch.jit.trace(model, images())
    file = io.BytesIO()
    torch.jit.save(traced, file)
    file.seek(0)
    again = torch.jit.load(file)
    # Another image, and another number of images.
    for x in (images(1), images(2, batch=3)):
        close(subject.last_map(again(x)), subject.run(model, x))


def jit_script(subject: Subject) -> None:
    model = subject.build().eval()
    scripted = torch.jit.script(model)
    close(subject.last_map(scripted(images())), subject.run(model, images()))


def fx_symbolic_trace(subject: Subject) -> None:
    model = subject.build()
    for is_training in (False, True):
        model.train(is_training)
        graph = torch.fx.symbolic_trace(model)
        called = {node.target for node in graph.graph.nodes if node.op == 'call_module'}
        assert any(str(name).endswith('mlp.fc1') for name in called)
        again = pickle.loads(pickle.dumps(graph))
        close(subject.run(again, images(1)), subject.run(model, images(1)))


def make_fx(subject: Subject) -> None:
    from torch.fx.experimental.proxy_tensor import make_fx as trace

    model = subject.build().eval()
    x = images()
    for mode in ('real', 'symbolic'):
        graph = trace(
            lambda x: subject.run(model, x), tracing_mode=mode, _allow_non_fake_inputs=True
        )(x)
        close(graph(images(1)), subject.run(model, images(1)))


def export(subject: Subject) -> None:
    model = subject.build().eval()
    program = torch.export.export(model, (images(),))
    close(subject.run(program.module(), images(1)), subject.run(model, images(1)))


def export_of_open_size(subject: Subject) -> None:
    model = subject.build().eval()
    auto = torch.export.Dim.AUTO
    shapes = ({0: auto, 2: auto, 3: auto},)
    program = torch.export.export(model, (images(side=(80, 96)),), dynamic_shapes=shapes)
    for size in ((80, 96), (64, 61), (132, 76)):
        x = images(1, batch=3, side=size)
        close(subject.run(program.module(), x), subject.run(model, x))


def compile_whole_graph(subject: Subject) -> None:
    model = subject.build()
    torch._dynamo.reset()
    run = torch.compile(model, fullgraph=True, backend='aot_eager')
    close(subject.run(run, images(1)), subject.run(model, images(1)))


# --- transforms and derivatives -----------------------------------------------------------------


def func_grad(subject: Subject) -> None:
    model = subject.build()
    parameters = dict(model.named_parameters())

    def loss(parameters: dict[str, Tensor]) -> Tensor:
        return subject.last_map(functional_call(model, parameters, (images(),))).square().mean()

    found = grad(loss)(parameters)
    expected = torch.autograd.grad(
        loss(parameters), list(parameters.values()), allow_unused=True, materialize_grads=True
    )
    for (name, actual), wanted in zip(found.items(), expected, strict=True):
        if wanted.abs().max() > 1e-4:
            close(actual, wanted, tolerance=1e-2), name


def vmap_over_images(subject: Subject) -> None:
    model = subject.build().eval()
    x = images(batch=3)[:, None]
    found = vmap(lambda image: subject.run(model, image))(x)
    close(found.flatten(0, 1), subject.run(model, x[:, 0]))


def gradient_per_image(subject: Subject) -> None:
    model = subject.build().eval()
    parameters = {name: p.detach() for name, p in model.named_parameters()}

    def loss(parameters: dict[str, Tensor], image: Tensor) -> Tensor:
        return subject.last_map(functional_call(model, parameters, (image[None],))).square().mean()

    x = images(batch=3)
    found = vmap(grad(loss), in_dims=(None, 0))(parameters, x)
    name = 'layers.0.blocks.1.attn.qkv.weight'
    for image, actual in zip(x, found[name], strict=True):
        close(actual, grad(loss)(parameters, image)[name], tolerance=1e-2)


def forward_mode(subject: Subject) -> None:
    model, x, v = subject.build().eval(), images(), images(1)
    _, found = jvp(lambda x: subject.run(model, x), (x,), (v,))
    double, step = copy.deepcopy(model).double(), 1e-5
    with torch.no_grad():
        plus, minus = (subject.run(double, x.double() + s * step * v) for s in (1, -1))
    close(found.detach(), ((plus - minus) / (2 * step)).float(), tolerance=1e-3)


def double_backward(subject: Subject) -> None:
    """The gradient of a penalty on the gradient, as of critics: against finite differences."""
    model = subject.build()

    def gradient(model: nn.Module, x: Tensor, *, create_graph: bool = False) -> Tensor:
        x = x.detach().requires_grad_()
        loss = subject.run(model, x).square().mean()
        return torch.autograd.grad(loss, x, create_graph=create_graph)[0], x

    x, v = images(), images(1)
    d_x, leaf = gradient(model, x, create_graph=True)
    found = torch.autograd.grad((d_x * v).sum(), leaf)[0]
    double, step = copy.deepcopy(model).double(), 1e-5
    plus, minus = (gradient(double, x.double() + s * step * v)[0] for s in (1, -1))
    close(found, ((plus - minus) / (2 * step)).float(), tolerance=1e-2)
    # And it reaches the weights.
    d_x, _ = gradient(model, x, create_graph=True)
    d_x.square().sum().backward()
    assert all(block.attn.qkv.weight.grad.abs().max() > 0 for block in blocks(model))


def gradcheck(subject: Subject) -> None:
    model = subject.build().double()
    x = images(batch=1).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: subject.run(model, x), (x,), fast_mode=True)


# --- hooks and wrappers -------------------------------------------------------------------------


def hooks(subject: Subject, layer: str) -> None:
    model = subject.build().eval()
    before, called = subject.run(model, images()), []

    def hook(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
        called.append(module)
        return output.flip(-1)

    targets = [block.get_submodule(layer) for block in blocks(model)]
    for is_grad in (True, False):
        called.clear()
        handles = [target.register_forward_hook(hook) for target in targets]
        with torch.set_grad_enabled(is_grad):
            assert (subject.run(model, images()) - before).abs().max() > 1e-3
        assert called == targets
        for handle in handles:
            handle.remove()
    # Gradients too, and then nothing is left.
    seen = []
    handle = targets[0].register_full_backward_hook(lambda *grads: seen.append(grads))
    subject.run(model, images()).sum().backward()
    handle.remove()
    assert len(seen) == 1
    close(subject.run(model, images()), before)


class LowRank(nn.Module):
    """A wrapper as adapters are: another module in the place of the layer."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.down = nn.Parameter(0.3 * torch.randn(2, base.in_features))
        self.up = nn.Parameter(0.3 * torch.randn(base.out_features, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + x @ self.down.t() @ self.up.t()


def wrapper(subject: Subject, layer: str) -> None:
    model = subject.build().requires_grad_(False)
    before = subject.run(model, images())
    wrappers = []
    owner_name, _, name = layer.rpartition('.')
    for block in blocks(model):
        owner = block.get_submodule(owner_name)
        wrappers.append(LowRank(getattr(owner, name)))
        setattr(owner, name, wrappers[-1])
    out = subject.run(model, images())
    assert (out - before).abs().max() > 1e-3
    out.square().mean().backward()
    assert all(w.up.grad.abs().max() > 0 and w.down.grad.abs().max() > 0 for w in wrappers)
    for block, w in zip(blocks(model), wrappers, strict=True):
        with torch.no_grad():
            w.base.weight += w.up @ w.down
        setattr(block.get_submodule(owner_name), name, w.base)
    close(subject.run(model, images()), out)


def peft_lora(subject: Subject) -> None:
    from peft import LoraConfig, get_peft_model

    model = subject.build()
    names = [name.rpartition('.')[2] for name in LAYERS]
    # The stem's proj too, which is a convolution.
    config = LoraConfig(r=2, target_modules=names, init_lora_weights=False)
    adapted = get_peft_model(model, config)
    before = subject.run(subject.build(), images())
    optimizer = torch.optim.SGD(adapted.parameters(), lr=0.01)
    out = subject.run(adapted, images())
    assert (out - before).abs().max() > 1e-3
    out.square().mean().backward()
    trained = {name for name, p in adapted.named_parameters() if p.grad is not None}
    assert all(any(f'.{layer}.lora_B' in name for name in trained) for layer in LAYERS)
    optimizer.step()
    adapted.eval()
    expected = subject.run(adapted, images())
    close(subject.run(adapted.merge_and_unload(), images()), expected)


def weight_of(subject: Subject, change: Callable[[nn.Linear], None]) -> None:
    """What replaces the weight of a layer must be what is multiplied with."""
    model = subject.build().eval()
    before = subject.run(model, images())
    for block in blocks(model):
        for layer in LAYERS:
            change(block.get_submodule(layer))
    twin = subject.build().eval()
    with torch.no_grad():
        for block, plain in zip(blocks(model), blocks(twin), strict=True):
            for layer in LAYERS:
                source = block.get_submodule(layer)
                source(torch.zeros(1, source.in_features))
                plain.get_submodule(layer).weight.copy_(source.weight)
    out = subject.run(model, images())
    assert (out - before).abs().max() > 1e-3
    close(out, subject.run(twin, images()))
    with torch.no_grad():
        close(subject.run(model, images()), out)


class Halved(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight / 2


def parametrization(subject: Subject) -> None:
    weight_of(subject, lambda m: parametrize.register_parametrization(m, 'weight', Halved()))


def pruning(subject: Subject) -> None:
    weight_of(subject, lambda layer: prune.l1_unstructured(layer, 'weight', amount=0.5))


def weight_norm(subject: Subject) -> None:
    def change(layer: nn.Linear) -> None:
        parametrizations.weight_norm(layer)
        with torch.no_grad():
            layer.parametrizations.weight.original0 *= 1.5

    weight_of(subject, change)


def weight_norm_by_hooks(subject: Subject) -> None:
    def change(layer: nn.Linear) -> None:
        nn.utils.weight_norm(layer)
        with torch.no_grad():
            layer.weight_g *= 1.5

    weight_of(subject, change)


def dynamic_int8(subject: Subject) -> None:
    """Torch's own: other modules in the place of linear layers."""
    model = subject.build().eval()
    small = torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)
    for block in blocks(small):
        assert type(block.attn.qkv) is not nn.Linear
    with torch.no_grad():
        expected, found = subject.run(model, images()), subject.run(small, images())
    assert 0 < (found - expected).abs().max() < 0.3 * expected.abs().max()


def torchao_int8(subject: Subject) -> None:
    """By torchao: tensors of another class in the place of weights."""
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    model, plain = subject.build().eval(), subject.build().eval()
    quantize_(model, Int8WeightOnlyConfig())
    for block in blocks(model):
        assert type(block.attn.qkv.weight) is not nn.Parameter
    with torch.no_grad():
        expected, found = subject.run(plain, images()), subject.run(model, images())
    assert 0 < (found - expected).abs().max() < 0.3 * expected.abs().max()


# --- copies, places and types -------------------------------------------------------------------


def copies(subject: Subject, make: Callable[[nn.Module], nn.Module]) -> None:
    model = subject.build().eval()
    with torch.no_grad():
        expected = subject.run(model, images())
        twin = make(model)
        close(subject.run(twin, images()), expected)
        for parameter in twin.parameters():
            parameter.mul_(1.5)
        assert (subject.run(twin, images()) - expected).abs().max() > 1e-3
        close(subject.run(model, images()), expected)


def saved(model: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def share_memory(subject: Subject) -> None:
    model = subject.build().eval()
    expected = subject.run(model, images())
    model.share_memory()
    assert all(parameter.is_shared() for parameter in model.parameters())
    close(subject.run(model, images()), expected)


def threads(subject: Subject) -> None:
    """As ``DataParallel`` does: replicas, which share all that is no tensor, in threads."""
    model = subject.build().eval()
    inputs = [images(i) for i in range(4)]
    with torch.no_grad():
        expected = [subject.run(model, x) for x in inputs]
    found: list[Tensor | None] = [None] * len(inputs)

    def work(i: int) -> None:
        with torch.no_grad():
            for _ in range(5):
                found[i] = subject.run(model, inputs[i])

    workers = [threading.Thread(target=work, args=(i,)) for i in range(len(inputs))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for actual, wanted in zip(found, expected, strict=True):
        assert actual is not None
        close(actual, wanted)


def averaged_model(subject: Subject) -> None:
    from torch.optim.swa_utils import AveragedModel

    model = subject.build().eval()
    average = AveragedModel(model)
    average.update_parameters(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
    average.update_parameters(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2 / 3)
        close(subject.run(average, images()), subject.run(model, images()), tolerance=1e-3)


def data_swapped(subject: Subject) -> None:
    """Weights written through ``.data`` in eval, as averaging hooks and quantisers do."""
    model = subject.build().eval()
    with torch.no_grad():
        subject.run(model, images())
        for parameter in model.parameters():
            parameter.data.copy_(1.3 * parameter.data)
        twin = copy.deepcopy(model)
        close(subject.run(model, images()), subject.run(twin, images()), tolerance=1e-6)


def channels_last(subject: Subject) -> None:
    model = subject.build().eval()
    expected = subject.run(model, images())
    model = model.to(memory_format=torch.channels_last)
    x = images().to(memory_format=torch.channels_last)
    close(subject.run(model, x), expected)


def in_type(subject: Subject, dtype: torch.dtype) -> None:
    model = subject.build().eval()
    expected = subject.run(model, images())
    out = subject.run(model.to(dtype), images().to(dtype))
    assert out.dtype is dtype
    tolerance = {torch.float16: 0.05, torch.bfloat16: 0.3, torch.float64: 1e-4}[dtype]
    close(out.float(), expected, tolerance=tolerance)
    out.float().square().mean().backward()
    assert all(block.attn.qkv.weight.grad.isfinite().all() for block in blocks(model))


def autocast(subject: Subject) -> None:
    model = subject.build()
    expected = subject.run(model, images())
    with torch.autocast('cpu', torch.bfloat16):
        out = subject.run(model, images())
    close(out.float(), expected, tolerance=0.3)
    out.float().square().mean().backward()


def meta_then_empty(subject: Subject) -> None:
    weights = subject.build().state_dict()
    with torch.device('meta'):
        model = subject.build()
    assert all(parameter.is_meta for parameter in model.parameters())
    model = model.to_empty(device='cpu')
    model.load_state_dict(weights)
    expected = subject.run(subject.build().eval(), images())
    close(subject.run(model.eval(), images()), expected)


def no_image(subject: Subject) -> None:
    model = subject.build()
    x = images()[:0].requires_grad_()
    out = subject.run(model, x)
    assert out.shape[0] == 0
    out.sum().backward()
    assert x.grad.shape == x.shape


def checkpointed(subject: Subject) -> None:
    from torch.utils.checkpoint import checkpoint

    model, x = subject.build(), images().requires_grad_()
    outs = [
        subject.run(model, x),
        checkpoint(lambda x: subject.run(model, x), x, use_reentrant=False),
    ]
    (a,), (b,) = (torch.autograd.grad(out.square().mean(), x) for out in outs)
    close(b, a, tolerance=1e-3)


def count_operations(subject: Subject) -> None:
    """torch's counter sees the products of linear layers."""
    from torch.utils.flop_counter import FlopCounterMode

    model = subject.build().eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        subject.run(model, images())
    tokens = 2 * 64
    least = sum(24 * tokens / 4**i * (16 * 2**i) ** 2 * depth for i, depth in enumerate(DEPTHS))
    assert counter.get_total_flops() > least


FEATURES: dict[str, Callable[[Subject], None]] = {
    '`torch.jit.trace`, saved and loaded': jit_trace,
    '`torch.jit.script`': jit_script,
    '`torch.fx.symbolic_trace`': fx_symbolic_trace,
    '`make_fx`': make_fx,
    '`torch.export`': export,
    '`torch.export`, open batch, height and width': export_of_open_size,
    '`torch.compile(fullgraph=True)`': compile_whole_graph,
    '`torch.func.grad` of `functional_call`': func_grad,
    '`torch.func.vmap` over images': vmap_over_images,
    '`vmap(grad)`: a gradient per image': gradient_per_image,
    '`torch.func.jvp`': forward_mode,
    'double backward': double_backward,
    '`gradcheck` in float64': gradcheck,
    **{f'hooks on `{layer}`': lambda s, layer=layer: hooks(s, layer) for layer in LAYERS},
    **{f'a wrapper around `{layer}`': lambda s, layer=layer: wrapper(s, layer) for layer in LAYERS},
    'LoRA by `peft` on all four: trains, merges': peft_lora,
    '`parametrize`': parametrization,
    '`prune`': pruning,
    '`parametrizations.weight_norm`': weight_norm,
    '`weight_norm` (by hooks)': weight_norm_by_hooks,
    '`quantize_dynamic`, int8': dynamic_int8,
    '`torchao`, int8 weights': torchao_int8,
    '`copy.deepcopy`': lambda s: copies(s, copy.deepcopy),
    '`pickle`': lambda s: copies(s, lambda model: pickle.loads(pickle.dumps(model))),
    '`torch.save(model)`': lambda s: copies(s, saved),
    '`share_memory`': share_memory,
    'threads': threads,
    '`AveragedModel`': averaged_model,
    'weights changed through `.data` in eval': data_swapped,
    '`channels_last`': channels_last,
    '`half()`': lambda s: in_type(s, torch.float16),
    '`bfloat16()`': lambda s: in_type(s, torch.bfloat16),
    '`double()`': lambda s: in_type(s, torch.float64),
    'bfloat16 autocast': autocast,
    '`meta` device, then `to_empty`': meta_then_empty,
    'a batch of no image, with gradients': no_image,
    '`torch.utils.checkpoint`': checkpointed,
    '`FlopCounterMode`': count_operations,
}


def failure(subject: Subject, name: str) -> str | None:
    """Run a check; ``None`` where it passes, else the kind of error."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        try:
            FEATURES[name](subject)
        except Exception as error:
            return type(error).__name__
    return None


def table() -> list[str]:
    subjects = [ours(), timm()]
    lines, passed = ['| | ours | timm |', '|---|---|---|'], [0, 0]
    for name in FEATURES:
        found = [failure(subject, name) or 'yes' for subject in subjects]
        passed = [n + (f == 'yes') for n, f in zip(passed, found, strict=True)]
        lines.append(f'| {name} | {found[0]} | {found[1]} |')
        print(lines[-1], flush=True)
    return [*lines, f'| **of {len(FEATURES)}** | **{passed[0]}** | **{passed[1]}** |']


def rows_of_document() -> dict[str, str]:
    """What the document says of ours, by feature."""
    text = re.search(r'<!-- table.*?-->(.*)<!-- end of table', DOCUMENT.read_text(), re.DOTALL)
    assert text is not None
    cells = [line.strip('| ').split(' | ') for line in text[1].strip().splitlines()[2:-1]]
    return {name: found for name, found, _ in cells}


if __name__ == '__main__':
    sys.path.insert(0, str(DOCUMENT.parents[1]))
    torch.set_num_threads(1)
    head, rest = DOCUMENT.read_text().split('<!-- end of table')
    head = re.sub(r'(<!-- table[^>]*-->\n).*', r'\1', head, flags=re.DOTALL)
    DOCUMENT.write_text(head + '\n'.join(table()) + '\n<!-- end of table' + rest)
