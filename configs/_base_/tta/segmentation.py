# As detection.py says. The six factors are those of Swin's ADE20K results (arXiv 2103.14030, A2.3).
tta = dict(scales=(0.5, 0.75, 1.0, 1.25, 1.5, 1.75), flips=('none', 'horizontal'))
