"""Run an ONNX file on arrays from standard input, in a process that can be emulated.

``qemu-x86_64 -cpu Haswell python dev/onnx_process.py model.onnx`` computes as a processor with AVX2
and without VNNI does. It imports neither torch nor the OpenMMLab libraries, which would take
minutes there.
"""

from __future__ import annotations

import pickle
import sys

import onnxruntime


def main() -> None:
    """Answer each pickled array with the pickled list of outputs, until the input ends."""
    session = onnxruntime.InferenceSession(sys.argv[1], providers=['CPUExecutionProvider'])
    while True:
        try:
            images = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        pickle.dump(session.run(None, {'images': images}), sys.stdout.buffer)
        sys.stdout.buffer.flush()


if __name__ == '__main__':
    main()
