"""Image weights in a video model: a video that stands still gives the image's maps."""

import oracle
import pytest
import torch

from projects.video.swinv2_video import VideoSwinV2
from projects.video.swinv2_video.inflation import inflate
from swinv2_mm.checkpoint import CheckpointError, save_pretrained
from swinv2_mm.core import SwinTransformerV2

ARCH = {'embed_dim': 8, 'depths': (2, 2, 1), 'num_heads': (1, 2, 4)}


def normal(*shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@pytest.fixture
def image_model():
    model = SwinTransformerV2(ARCH, window_size=(4, 4, 2), out_indices=(0, 1, 2)).double()
    oracle.randomise(model, seed=0)
    return model.eval()


def video_model(checkpoint=None, **settings) -> VideoSwinV2:
    init_cfg = checkpoint and {'type': 'Pretrained', 'checkpoint': str(checkpoint)}
    settings = {'window_size': (4, 4, 2), 'temporal_window_size': 2} | settings
    model = VideoSwinV2(ARCH, out_indices=(0, 1, 2), init_cfg=init_cfg, **settings).double()
    model.init_weights()
    return model.eval()


def still(image: torch.Tensor, num_frames: int) -> torch.Tensor:
    return image[:, :, None].expand(-1, -1, num_frames, -1, -1)


@pytest.mark.parametrize('kind', ['log_cpb', 'linear_cpb'])
@pytest.mark.parametrize('tubelet', [1, 2, 3])
# In tubelets of 2, with windows of 2: one token in time, a whole window, a seam, padding as well.
@pytest.mark.parametrize('num_frames', [1, 4, 8, 9])
def test_a_still_video_gives_the_images_maps(num_frames, tubelet, kind):
    image = torch.randn(
        2, 3, 41, 54, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    settings = {'window_size': (4, 4, 2), 'out_indices': (0, 1, 2), 'position_bias': kind}
    image_model = SwinTransformerV2(ARCH, **settings).eval().double()
    oracle.randomise(image_model, seed=0)
    model = video_model(patch_size=(tubelet, 4, 4), position_bias=kind).double()
    inflate(image_model, into=model)
    for one, several in zip(image_model(image), model(still(image, num_frames)), strict=True):
        assert several.shape[2] == -(-num_frames // tubelet)
        for frame in several.unbind(2):
            torch.testing.assert_close(frame, one, rtol=0, atol=1e-10)


def test_a_still_video_in_float32():
    # With the weights that training starts from, but for the block norms: those are zero.
    # Measured: 1.4e-5. The norms enlarge what rounding leaves of small branches.
    torch.manual_seed(0)
    image_model = SwinTransformerV2(ARCH, window_size=4, out_indices=(0, 1, 2)).eval()
    for name, parameter in image_model.named_parameters():
        if '.norm' in name and name.endswith('weight'):
            torch.nn.init.ones_(parameter)
    model = video_model(window_size=4).float()
    inflate(image_model, into=model)
    image = torch.randn(2, 3, 41, 54)
    for one, several in zip(image_model(image), model(still(image, 9)), strict=True):
        for frame in several.unbind(2):
            torch.testing.assert_close(frame, one, rtol=0, atol=5e-5)


def test_a_moving_video_does_not():
    model = SwinTransformerV2(ARCH, window_size=4, out_indices=(0, 1, 2)).eval().double()
    oracle.randomise(model, seed=0)
    video = video_model(window_size=4)
    inflate(model, into=video)
    frames = torch.randn(
        1, 3, 4, 32, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    assert (video(frames)[-1][:, :, 0] - model(frames[:, :, 0])[-1]).abs().max() > 0.1


@pytest.mark.parametrize('layout', ['own', 'official', 'timm', 'mmpretrain', 'torchvision'])
@pytest.mark.parametrize('suffix', ['pth', 'safetensors'])
def test_every_layout_is_inflated_at_other_windows(layout, suffix, image_model, tmp_path):
    path = tmp_path / f'weights.{suffix}'
    save_pretrained(image_model, path, layout=layout)
    # timm's own files do not tell the windows; a safetensors file of ours has them in a note.
    given = (4, 4, 2) if layout == 'timm' and suffix == 'pth' else None
    model = video_model(path, window_size=6, temporal_window_size=8, pretrained_window_sizes=given)
    assert model.get_pretrained_window_sizes() == ((8, 4, 4), (8, 4, 4), (8, 2, 2))
    assert model.window_sizes == ((8, 6, 6),) * 3
    image = torch.randn(
        1, 3, 48, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    image_model.set_window_size(6)
    torch.testing.assert_close(
        model(still(image, 6))[-1][:, :, 1], image_model(image)[-1], rtol=0, atol=1e-10
    )


def test_hugging_face_folder(image_model, tmp_path):
    save_pretrained(image_model, tmp_path / 'folder', layout='huggingface')
    model = video_model(tmp_path / 'folder')
    image = torch.randn(
        1, 3, 48, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    torch.testing.assert_close(
        model(still(image, 2))[-1][:, :, 0], image_model(image)[-1], rtol=0, atol=1e-10
    )


def test_the_bias_learns_time_from_there():
    model = video_model()
    inflate(SwinTransformerV2(ARCH, window_size=4, out_indices=(0, 1, 2)), into=model)
    oracle.randomise(model.layers[0].blocks[0].norm1, seed=0)
    network = model.layers[0].blocks[0].attn.bias_network
    assert network[0].weight[:, 0].abs().max() == 0
    model(normal(1, 3, 4, 16, 16))[0].square().sum().backward()
    assert network[0].weight.grad[:, 0].abs().max() > 0


def test_weights_that_do_not_fit(image_model, tmp_path):
    path = tmp_path / 'weights.pth'
    save_pretrained(image_model, path)
    with pytest.raises(CheckpointError, match=r'depths \(2, 2, 1\); the model has'):
        model = VideoSwinV2(
            ARCH | {'depths': (1, 2, 1)},
            out_indices=(0, 1, 2),
            init_cfg={'type': 'Pretrained', 'checkpoint': str(path)},
        )
        model.init_weights()
    torch.save(video_model().state_dict(), path)
    with pytest.raises(CheckpointError, match='load_from instead of init_cfg'):
        video_model(path)
    with pytest.raises(ValueError, match=r'no layers\.0\.blocks\.1'):
        inflate(
            SwinTransformerV2(ARCH | {'depths': (1, 2, 1)}, out_indices=(0,)), into=video_model()
        )
