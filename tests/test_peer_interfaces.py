"""What others offer for models takes ours: torch.hub."""

import torch
from conftest import ROOT

from swinv2_mm.core import SwinTransformerV2


def test_torch_hub(tmp_path):
    from swinv2_mm.checkpoint import save_pretrained

    arguments = dict(window_size=8, out_indices=(0, 3))
    model = SwinTransformerV2('tiny', **arguments).eval()
    save_pretrained(model, tmp_path / 'tiny.pth', layout='official')
    loaded = torch.hub.load(
        str(ROOT), 'swinv2_tiny', source='local', weights=str(tmp_path / 'tiny.pth'), **arguments
    ).eval()
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for ours, theirs in zip(model(image), loaded(image), strict=True):
            torch.testing.assert_close(ours, theirs)
