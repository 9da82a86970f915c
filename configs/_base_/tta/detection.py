# How `tools/test.py --tta` looks at an image: scales are factors of the test size, or pairs
# (width, height) in pixels; flips are none, horizontal, vertical, diagonal. A leaf may have its own.
tta = dict(
    scales=(0.75, 1.0, 1.25), flips=('none', 'horizontal'),
    # For models without suppression of their own (DINO, Mask2Former): as Co-DINO's. Others use theirs.
    nms=dict(type='soft_nms', iou_threshold=0.8))
