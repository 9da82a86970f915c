"""Read what a checkpoint says about its model besides the weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from swinv2_mm.core import SwinTransformerV2
from swinv2_mm.errors import UserError

# No training has larger values; a made-up file may.
_LARGEST_WINDOW, _LARGEST_IMAGE_PX = 1024, 100_000


@dataclass(frozen=True)
class SavedFacts:
    """What the config and the data set's description in a checkpoint say.

    Attributes:
        window_size: Window of the trained backbone, as its config has it; ``None`` if unknown.
        image_side_px: Side of the square images that the model is tested at; ``None`` if unknown.
        classes: Names by their numbers; empty if unknown.
    """

    window_size: Any = None
    image_side_px: int | None = None
    classes: tuple[str, ...] = ()

    def apply(self, backbone: SwinTransformerV2) -> None:
        """Set the windows of a backbone to those that were trained, clipped to the maps.

        Raises:
            ValueError: If the windows do not fit the backbone.
        """
        if self.window_size is None:
            return
        backbone.set_window_size(self.window_size)
        if self.image_side_px is not None:
            patch_px = backbone.patch_embed.proj.stride[0]
            maps = [
                max(self.image_side_px // (patch_px * 2**stage), 1)
                for stage in range(len(backbone.window_sizes))
            ]
            clipped = [
                tuple(min(side, length) for side in window)
                for window, length in zip(backbone.window_sizes, maps, strict=True)
            ]
            backbone.set_window_size(clipped)


def saved_facts(content: Any) -> SavedFacts:
    """Read the config text and the class names of a checkpoint, without executing the text.

    Args:
        content: Content of a file, as it was saved.
    """
    meta = content.get('meta') if isinstance(content, Mapping) else None
    if not isinstance(meta, Mapping):
        return SavedFacts()
    # Not at the top: plain weights are converted without OpenMMLab.
    from swinv2_mm.config.text import parse_config_text

    settings = parse_config_text(meta.get('cfg'))
    model = settings.get('model')
    backbone = model.get('backbone') if isinstance(model, dict) else None
    window = backbone.get('window_size') if isinstance(backbone, dict) else None
    data = meta.get('dataset_meta')
    names = data.get('classes') if isinstance(data, Mapping) else None
    is_named = isinstance(names, (list, tuple)) and all(isinstance(name, str) for name in names)
    return SavedFacts(
        window_size=window if _is_window(window) else None,
        image_side_px=_image_side_px(settings),
        classes=tuple(names) if is_named else (),
    )


def _is_window(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return bool(value) and all(map(_is_window, value))
    return type(value) is int and 0 < value <= _LARGEST_WINDOW


def _image_side_px(settings: dict[str, Any]) -> int | None:
    from mmengine.config import Config

    from swinv2_mm.analysis.input_size import input_size_px

    try:
        height, width = input_size_px(Config(settings))
    except (UserError, TypeError, ValueError, AttributeError, KeyError):
        # Somebody else's config, or none.
        return None
    is_square = height == width and type(height) is int and 0 < height <= _LARGEST_IMAGE_PX
    return height if is_square else None
