"""Write the lines that predict as the page does, in Python and in a shell."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from .model_shelf import ModelChoice


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the page is asked for.

    Attributes:
        choice: The model.
        image: Name of the image file.
        window_size: In tokens; ``None`` for the window of the config.
        score_threshold: Detections below are not drawn.
        device: See ``SwinV2Inferencer``.
    """

    choice: ModelChoice
    image: str
    window_size: int | None
    score_threshold: float
    device: str | None

    def python(self) -> str:
        """Return the lines in Python."""
        arguments = [repr(self.choice.config), repr(self.choice.weights)]
        if self.window_size is not None:
            arguments.append(f'window_size={self.window_size}')
        if self.device is not None:
            arguments.append(f'device={self.device!r}')
        drawing = 'prediction'
        if self.choice.task == 'detection':
            drawing += f', score_threshold={self.score_threshold:g}'
        inner = ''.join(f'    {argument},\n' for argument in arguments)
        return (
            'import cv2\n'
            'from swinv2_mm import SwinV2Inferencer\n\n'
            f'inferencer = SwinV2Inferencer(\n{inner})\n'
            f'for prediction in inferencer([{self.image!r}]):\n'
            '    print(prediction.to_dict())\n'
            f"    cv2.imwrite('predicted.jpg', inferencer.draw({drawing}))\n"
        )

    def command(self) -> str:
        """Return the command."""
        words = ['swinv2-mm', 'infer', self.image]
        words += ['--config', self.choice.config, '--weights', self.choice.weights]
        if self.window_size is not None:
            words += ['--window-size', str(self.window_size)]
        if self.device is not None:
            words += ['--device', self.device]
        if self.choice.task == 'detection':
            words += ['--score-threshold', f'{self.score_threshold:g}']
        return shlex.join(words)
