"""SimMIM: hide blocks of an image, predict their pixels (arXiv 2111.09886)."""

from __future__ import annotations

import torch
from mmengine.registry import MODELS
from mmpretrain.models.selfsup.base import BaseSelfSupervisor
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from swinv2_mm.errors import UserError

from .head import masked_l1


@MODELS.register_module()
class MaskedImageModel(BaseSelfSupervisor):
    """A SwinV2 encoder that sees a learnt token in place of the masked ones, and a decoder.

    The token is no part of the backbone, which stays a plain ``SwinV2``: ``load_pretrained`` reads
    its weights from a checkpoint of this model as from any other. (mmpretrain's ``SimMIM`` needs a
    backbone that takes a mask, and cannot be validated.)

    Args:
        backbone: ``SwinV2`` whose last stage is its only output.
        neck: ``SimMIMLinearDecoder`` of mmpretrain: a 1x1 convolution and a pixel shuffle.
        head: ``MaskedPixelHead``.
        data_preprocessor: ``SelfSupDataPreprocessor`` of mmpretrain.

    Raises:
        ValueError: If the backbone has several outputs.
    """

    def __init__(
        self, *, backbone: dict, neck: dict, head: dict, data_preprocessor: dict | None = None
    ) -> None:
        super().__init__(backbone, neck=neck, head=head, data_preprocessor=data_preprocessor)
        if len(self.backbone.out_indices) != 1:
            raise ValueError(
                'MaskedImageModel decodes one map: give the backbone out_indices=(3,), not '
                f'{self.backbone.out_indices}'
            )
        self.mask_token = nn.Parameter(torch.zeros(1, 1, self.backbone.arch.embed_dim))

    def init_weights(self) -> None:
        """Initialise as the official code does."""
        super().init_weights()
        nn.init.trunc_normal_(self.mask_token, std=0.02)

    def forward(
        self, inputs: Tensor, data_samples: list[DataSample] | None = None, mode: str = 'tensor'
    ) -> tuple[Tensor, ...] | dict[str, Tensor] | list[DataSample]:
        """Run in one of MMEngine's modes: ``tensor``, ``loss`` or ``predict``."""
        if mode == 'predict':
            return self.predict(inputs, data_samples)
        return super().forward(inputs, data_samples, mode=mode)

    def encode(self, images: Tensor, mask: Tensor) -> Tensor:
        """Return the features of images with masked tokens.

        Shapes:
            (B, 3, H, W), (B, H / 4, W / 4) with 1 where masked -> (B, C, H / 32, W / 32)

        Raises:
            UserError: If the mask has another number of tokens than the images.
        """
        tokens = self.backbone.patch_embed(images)
        if mask.shape != tokens.shape[:3]:
            raise UserError(
                f'masks of {tuple(mask.shape[1:])} tokens do not fit images of '
                f'{tuple(tokens.shape[1:3])}: input_size of RandomBlockMask must be the size of '
                'the images, model_patch_size that of the patches of the backbone'
            )
        tokens = torch.where(mask.bool().unsqueeze(3), self.mask_token.to(tokens.dtype), tokens)
        return self.backbone.forward_tokens(tokens)[0]

    def reconstruct(self, images: Tensor, mask: Tensor) -> Tensor:
        """Predict all pixels: (B, 3, H, W), (B, H / 4, W / 4) -> (B, 3, H, W)."""
        return self.neck(self.encode(images, mask))

    def loss(self, inputs: Tensor, data_samples: list[DataSample]) -> dict[str, Tensor]:
        """Return the loss of a batch, under ``loss``."""
        mask = _masks(data_samples)
        return {'loss': self.head.loss(self.reconstruct(inputs, mask), inputs, mask)}

    def predict(self, inputs: Tensor, data_samples: list[DataSample]) -> list[DataSample]:
        """Add to each sample what ``MaskedL1`` and the pictures need.

        ``masked_l1``: the loss of the image; ``mean_colour_l1``: that of the mean of its visible
        pixels in place of a prediction; ``reconstruction``: (3, H, W) in RGB and [0, 255], the
        prediction where masked, else the image.
        """
        mask = _masks(data_samples)
        prediction = self.reconstruct(inputs, mask)
        target, pixels = self.head.target(inputs), self.head.in_pixels(mask)
        visible = 1 - pixels.unsqueeze(1)
        total = (target * visible).sum(dim=(2, 3), keepdim=True)
        mean = total / visible.sum(dim=(2, 3), keepdim=True).clamp(min=1)
        shown = torch.where(
            pixels.unsqueeze(1).bool(), self.head.as_images(prediction, inputs), inputs
        )
        shown = shown * self.data_preprocessor.std + self.data_preprocessor.mean
        for i, sample in enumerate(data_samples):
            one = slice(i, i + 1)
            for name, guess in (('masked_l1', prediction), ('mean_colour_l1', mean)):
                error = masked_l1(guess[one], target[one], pixels[one])
                sample.set_field(error.item(), name)
            sample.set_field(shown[i].clamp(0, 255), 'reconstruction')
        return data_samples

    def extract_feat(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """Return the features of whole images."""
        return self.backbone(inputs)


def _masks(data_samples: list[DataSample]) -> Tensor:
    return torch.stack([sample.mask for sample in data_samples])
