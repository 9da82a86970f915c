# What every pre-training shares: this project's code, amplitudes of activations as scalars, and every interval-th validation
# image drawn with its reconstruction (to WORK_DIR/TIME/vis_data/vis_image, and to the backends of log_to).
_base_ = '../../../../configs/_base_/runtime/classification.py'
custom_imports = dict(imports=['swinv2_mm.models', 'swinv2_mm.analysis.signal_hook', 'projects.simmim.simmim'])
visualizer = dict(type='ReconstructionVisualizer')
custom_hooks = [dict(type='SignalHook', interval=100)]
