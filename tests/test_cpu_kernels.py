"""Which code a CPU runs: the table of rules, the variable that fixes it, and what follows."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from swinv2_mm.core import SwinTransformerV2, cpu_kernels
from swinv2_mm.core.attention import backends
from swinv2_mm.core.cpu_kernels import CPU_RULES, find_rule

RULES = {rule.name: rule for rule in CPU_RULES}


@pytest.mark.parametrize(
    ('capability', 'vendor', 'name'),
    [
        ('AVX512', 'AuthenticAMD', 'avx512-amd'),
        ('AVX512', 'GenuineIntel', 'plain'),
        ('AVX2', 'AuthenticAMD', 'avx2'),
        ('AVX2', 'GenuineIntel', 'avx2'),
        ('DEFAULT', '', 'plain'),
        ('SVE256', '', 'plain'),
    ],
)
def test_rule_of_a_processor(capability, vendor, name):
    assert find_rule(capability=capability, vendor=vendor).name == name


def test_what_is_unknown_is_left_to_torch():
    assert RULES['plain'].onednn == frozenset()
    assert RULES['plain'] is CPU_RULES[-1]


def test_a_name_fixes_the_rule_and_a_wrong_one_is_refused():
    for name, rule in RULES.items():
        assert find_rule(capability='DEFAULT', vendor='', fixed=name) is rule
    with pytest.raises(ValueError, match='SWINV2_CPU_KERNELS'):
        find_rule(capability='DEFAULT', vendor='', fixed='avx9')


def test_a_limit_on_onednn_counts(monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, 'get_cpu_capability', lambda: 'AVX512')
    for limit, expected in [('AVX2', 'AVX2'), ('SSE41', 'AVX2'), ('AVX512_CORE', 'AVX512')]:
        monkeypatch.setenv('ONEDNN_MAX_CPU_ISA', limit)
        assert cpu_kernels._capability() == expected


def step(model: SwinTransformerV2, x: torch.Tensor) -> tuple[list[torch.Tensor], set[str]]:
    """Outputs and gradients of a training step, and the names of its operators."""
    names = set()

    class Record(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            names.add(func.overloadpacket.__name__)
            return func(*args, **(kwargs or {}))

    with Record():
        outs = model(x)
        grads = torch.autograd.grad(sum(o.square().mean() for o in outs), list(model.parameters()))
    return [*outs, *grads], names


def test_each_rule_computes_the_same(monkeypatch):
    arch = {'embed_dim': 8, 'depths': (2,), 'num_heads': (2,)}
    model = SwinTransformerV2(arch, window_size=12, out_indices=(0,), drop_path_rate=0.0)
    x = torch.randn(1, 3, 100, 100)
    found = {}
    rules = {**RULES, 'saving': RULES['plain']._replace(most_kept_tokens=0)}
    for name, rule in rules.items():
        monkeypatch.setattr(cpu_kernels, 'cpu_rule', lambda rule=rule: rule)
        monkeypatch.setattr('swinv2_mm.core.linear.cpu_rule', lambda rule=rule: rule)
        monkeypatch.setattr(backends, 'cpu_rule', lambda rule=rule: rule)
        found[name], names = step(model, x)
        # Bit-equal to itself.
        assert all(map(torch.equal, found[name], step(model, x)[0]))
        assert ('_linear_pointwise' in names) == (rule.onednn != frozenset())
        # Groups whose logits are computed again are attended by torch's fused attention.
        is_fused = '_scaled_dot_product_flash_attention_for_cpu' in names
        assert is_fused == (rule.most_kept_tokens == 0)
        runs = 'grouped' if rule.most_kept_tokens == 0 else 'kept'
        assert f'{runs} (sdpa on a CPU)' in model.describe_attention()
    for other in found.values():
        for actual, expected in zip(other, found['plain'], strict=True):
            scale = expected.abs().max().item() or 1.0
            torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-4 * scale)


@pytest.mark.parametrize('name', list(RULES))
def test_the_variable_decides(name, monkeypatch):
    monkeypatch.setenv('SWINV2_CPU_KERNELS', name)
    # Read once in a process, which has done so already.
    assert cpu_kernels.cpu_rule.__wrapped__().name == name


def test_a_resumed_training_keeps_the_row(monkeypatch):
    monkeypatch.delenv('SWINV2_CPU_KERNELS', raising=False)
    monkeypatch.setattr(cpu_kernels, '_resumed', None)
    cpu_kernels.cpu_rule.cache_clear()
    own = cpu_kernels.cpu_rule().name
    other = next(name for name in RULES if name != own)
    try:
        assert cpu_kernels.resume_cpu_rule(own) is None
        assert 'not known' in cpu_kernels.resume_cpu_rule('avx9')
        assert cpu_kernels.cpu_rule().name == own
        assert f'SWINV2_CPU_KERNELS={own}' in cpu_kernels.resume_cpu_rule(other)
        assert cpu_kernels.cpu_rule().name == other
        # The variable wins.
        monkeypatch.setenv('SWINV2_CPU_KERNELS', own)
        cpu_kernels.cpu_rule.cache_clear()
        assert other in cpu_kernels.resume_cpu_rule(other)
        assert cpu_kernels.cpu_rule().name == own
    finally:
        monkeypatch.undo()
        cpu_kernels.cpu_rule.cache_clear()
