# As detection.py says; a centre crop grows with the image.
tta = dict(scales=(1.0, 1.25), flips=('none', 'horizontal'))
