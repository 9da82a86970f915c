"""The loss, masks, metric and pictures, on numbers that can be computed by hand."""

import numpy as np
import pytest
import torch
from mmpretrain.structures import DataSample
from PIL import Image

from projects.simmim.simmim.head import MaskedPixelHead, local_statistics, masked_l1
from projects.simmim.simmim.masks import RandomBlockMask
from projects.simmim.simmim.metric import MaskedL1
from projects.simmim.simmim.pictures import ReconstructionVisualizer, panels

# --- the loss -----------------------------------------------------------------------------------


def test_loss_counts_masked_pixels_only():
    """Two masked pixels, differences 1 + 2 + 3 and 0 + 0 + 3, three channels: 9 / 2 / 3."""
    target = torch.zeros(1, 3, 2, 2)
    prediction = torch.full((1, 3, 2, 2), 100.0)
    prediction[0, :, 0, 0] = torch.tensor([1.0, -2.0, 3.0])
    prediction[0, :, 1, 1] = torch.tensor([0.0, 0.0, -3.0])
    mask = torch.tensor([[[1, 0], [0, 1]]])
    assert masked_l1(prediction, target, mask).item() == pytest.approx(9 / 2 / 3, rel=1e-4)


def test_loss_has_the_official_epsilon():
    ones = torch.ones(1, 3, 1, 1, dtype=torch.float64)
    loss = masked_l1(ones, 0 * ones, torch.tensor([[[1.0]]], dtype=torch.float64))
    assert loss.item() == pytest.approx(3 / 1.00001 / 3, rel=1e-12)
    assert masked_l1(ones, 0 * ones, torch.zeros(1, 1, 1)).item() == 0


def test_loss_pools_a_batch_over_its_pixels():
    """An image with three masked pixels of error 1 and one with one of error 5: 8 / 4, not 3."""
    target = torch.zeros(2, 3, 2, 2)
    prediction = target.clone()
    prediction[0], prediction[1] = 1, 5
    mask = torch.tensor([[[1, 1], [1, 0]], [[0, 0], [0, 1]]])
    assert masked_l1(prediction, target, mask).item() == pytest.approx(2, rel=1e-4)


def test_head_reads_the_mask_in_tokens():
    head = MaskedPixelHead(patch_size=2)
    mask = torch.tensor([[[1, 0], [0, 0]]])
    images = torch.zeros(1, 3, 4, 4)
    prediction = torch.arange(48.0).reshape(1, 3, 4, 4)
    # The masked token holds 0, 1, 4, 5 of the first channel, 16 and 32 more in the others.
    expected = (10 + (10 + 4 * 16) + (10 + 4 * 32)) / 4 / 3
    assert head.loss(prediction, images, mask).item() == pytest.approx(expected, rel=1e-4)


def test_window_statistics_are_those_of_the_pixels_that_are_there():
    images = torch.randn(2, 3, 5, 6, generator=torch.Generator().manual_seed(0)).double()
    mean, deviation = local_statistics(images, window_px=3)
    for y in range(5):
        for x in range(6):
            there = images[:, :, max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2].flatten(2)
            torch.testing.assert_close(mean[:, :, y, x], there.mean(2))
            expected = (there.var(2, unbiased=True) + 1e-6).sqrt()
            torch.testing.assert_close(deviation[:, :, y, x], expected)


def test_normalised_target_and_its_inverse():
    images = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)).double()
    head, plain = MaskedPixelHead(target_window_px=5), MaskedPixelHead()
    mean, deviation = local_statistics(images, window_px=5)
    torch.testing.assert_close(head.target(images), (images - mean) / deviation)
    torch.testing.assert_close(head.as_images(head.target(images), images), images)
    assert plain.target(images) is images
    # A constant image: no deviation to divide by.
    assert head.target(torch.full((1, 3, 8, 8), 7.0)).abs().max() < 1e-2


@pytest.mark.parametrize('window', [0, 1, 2, 46])
def test_window_must_be_odd(window):
    with pytest.raises(ValueError, match='odd'):
        MaskedPixelHead(target_window_px=window)


# --- masks --------------------------------------------------------------------------------------


def test_mask_is_of_whole_blocks_and_of_the_official_number():
    np.random.seed(0)
    hide, seen = RandomBlockMask(), []
    for _ in range(400):
        mask = hide.transform({})['mask']
        assert mask.shape == (48, 48)
        blocks = mask.reshape(6, 8, 6, 8)
        assert (blocks == blocks[:, :1, :, :1]).all()
        seen.append(blocks[:, 0, :, 0])
        assert seen[-1].sum() == 22  # 0.6 of 36 is 21.6
    # Each block is hidden 22 times of 36; five standard errors.
    assert np.abs(np.mean(seen, axis=0) - 22 / 36).max() < 5 * (0.61 * 0.39 / 400) ** 0.5
    assert len({mask.tobytes() for mask in seen}) > 390


def test_fixed_mask_goes_with_the_image():
    hide = RandomBlockMask(is_fixed=True)
    np.random.seed(5)
    expected = np.random.rand()
    np.random.seed(5)
    first = hide.transform({'sample_idx': 3})['mask']
    assert np.random.rand() == expected  # what training draws is not disturbed
    assert (hide.transform({'sample_idx': 3})['mask'] == first).all()
    assert (hide.transform({'sample_idx': 4})['mask'] != first).any()


@pytest.mark.parametrize(
    'settings, message',
    [
        ({'input_size': 100}, 'input_size a multiple of mask_patch_size, got 100 and 32'),
        ({'mask_patch_size': 6, 'input_size': 12}, 'mask_patch_size a multiple of'),
        ({'mask_ratio': 0.0}, 'mask_ratio'),
        ({'mask_ratio': 60}, 'mask_ratio'),
    ],
)
def test_impossible_masks_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        RandomBlockMask(**settings)


# --- metric and pictures ------------------------------------------------------------------------


def test_metric_averages_over_images():
    metric = MaskedL1()
    metric.process({}, [{'masked_l1': 1.0, 'mean_colour_l1': 2.0}])
    metric.process({}, [{'masked_l1': 2.0, 'mean_colour_l1': 4.0}] * 2)
    found = metric.evaluate(3)
    assert found == {'masked_l1': pytest.approx(5 / 3), 'mean_colour_l1': pytest.approx(10 / 3)}


def reconstructed():
    """A 4 x 4 image whose left half is hidden and predicted to be (10, 20, 30)."""
    image = np.random.default_rng(0).integers(0, 255, (4, 4, 3), np.uint8)
    shown = torch.from_numpy(image).permute(2, 0, 1).float()
    shown[:, :, :2] = torch.tensor([10.0, 20.0, 30.0])[:, None, None]
    return image, DataSample(mask=torch.tensor([[1, 0], [1, 0]]), reconstruction=shown)


def test_panels():
    image, sample = reconstructed()
    original, masked, shown = panels(image, sample)
    assert (original == image).all()
    assert (masked[:, :2] == 127).all() and (masked[:, 2:] == image[:, 2:]).all()
    assert (shown[:, :2] == (10, 20, 30)).all() and (shown[:, 2:] == image[:, 2:]).all()


def test_visualizer_writes_what_the_hook_gives_it(tmp_path):
    image, sample = reconstructed()
    visualizer = ReconstructionVisualizer(name='reconstruction-test')
    path = tmp_path / 'new' / 'picture.png'
    visualizer.visualize_cls(image[..., ::-1], sample, out_file=str(path), show=False)
    with Image.open(path) as file:
        picture = np.asarray(file)
    assert picture.shape == (4, 3 * 4 + 2 * 4, 3)
    assert (picture[:, :4] == image).all()
    assert (picture[:, 16:18] == (10, 20, 30)).all()


def test_v1_recorder_measures_what_is_added():
    """The amplitude of the main branch follows from what the hooks see, block by block."""
    from mmpretrain.models import SwinTransformer

    from projects.simmim.simmim.swin_v1 import SwinV1SignalRecorder

    torch.manual_seed(0)
    arch = dict(embed_dims=8, depths=(2, 1), num_heads=(1, 2))
    model = SwinTransformer(arch, img_size=32, window_size=4, out_indices=(1,), drop_path_rate=0.0)
    block, recorder = model.stages[0].blocks[1], SwinV1SignalRecorder()
    seen = {}
    block.register_forward_hook(lambda _m, inputs, out: seen.update(x=inputs[0], out=out))
    with recorder.watching(model), torch.no_grad():
        model.eval()
        model(torch.randn(2, 3, 32, 32))
        x = seen['x']
        attention = block.attn(block.norm1(x), (8, 8))
        mlp = seen['out'] - (x + attention)
    found = recorder.amplitudes()
    assert list(found)[:3] == ['attention/0.0', 'mlp/0.0', 'main/0.0']
    for place, value in (('attention', attention), ('mlp', mlp), ('main', seen['out'])):
        assert found[f'{place}/0.1'] == pytest.approx(value.square().mean().sqrt().item(), rel=1e-4)
