"""Define the kinds of problems of data: severity, meaning and remedy of each.

An error stops training or is learnt as if it were right; a warning loses data or spoils the score;
a note is worth knowing.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Severity = Literal['error', 'warning', 'note']


class Kind(NamedTuple):
    """``what`` follows a count: '3 x images that do not exist'."""

    severity: Severity
    what: str
    remedy: str


def _error(what: str, remedy: str) -> Kind:
    return Kind('error', what, remedy)


def _warning(what: str, remedy: str) -> Kind:
    return Kind('warning', what, remedy)


def _note(what: str, remedy: str) -> Kind:
    return Kind('note', what, remedy)


_COPY_AGAIN = 'copy the file again from its source, or take it out of the data set'
_WRITE_AGAIN = 'correct or delete these annotations, or export the file again'

CATALOGUE: dict[str, Kind] = {
    # Classes.
    'class-missing': _error(
        'classes of the config that the data does not name',
        'spell metainfo.classes exactly as the data does, or take the class out',
    ),
    'class-left-out': _warning(
        'categories of the file that metainfo.classes leaves out; their instances are not read',
        'add them to metainfo.classes, or leave it so if that is meant',
    ),
    'class-order': _warning(
        'classes in another order than in metainfo.classes; labels follow the names here, '
        'in other programs they may follow the places',
        'write metainfo.classes in the order of the data, the same in train and val',
    ),
    'class-repeated': _error('class names that occur twice', 'give every class a name of its own'),
    'classes-not-a-list': _error(
        'metainfo.classes that is not a list of names',
        "write a tuple; one class needs the comma: classes=('balloon',)",
    ),
    'classes-misspelt': _error(
        'entries of metainfo that nothing reads',
        "name the classes as metainfo=dict(classes=('ape', 'bee'))",
    ),
    'classes-not-named': _error(
        'data sets without class names', 'set metainfo=dict(classes=(...))'
    ),
    'class-not-of-type': _error(
        'class names that the type of the data set, which brings its own, does not know',
        "set type='BaseSegDataset' for a data set of your own",
    ),
    'class-folder-hidden': _error(
        'hidden folders among the class folders; each counts as a class', 'delete them'
    ),
    'class-folders-differ': _warning(
        'class folders that are missing; labels follow the names here, in other programs the '
        'places of the sorted names',
        'give train and val the same folders, an empty one if a class has no images',
    ),
    'class-folder-unknown': _error(
        'class folders without a class',
        'spell folders as metainfo.classes and the training set do, or take them out',
    ),
    'num-classes': _error(
        'settings of the model that do not fit the number of classes',
        'set them to the number of classes',
    ),
    'palette-length': _error(
        'palettes without exactly one colour a class', 'give one colour per class or none'
    ),
    'class-thing-or-stuff': _error(
        'categories whose isthing is missing, or contradicts metainfo.thing_classes',
        'write isthing: 1 for things and 0 for stuff, and name the things in thing_classes',
    ),
    'category-id-repeated': _error(
        'category ids that occur twice', 'give every category an id of its own'
    ),
    'category-unusable': _error(
        'categories of metainfo.classes without a whole number of their own as id',
        'number the categories 1, 2, 3, ..., and category_id of the annotations with them',
    ),
    'class-never-seen': _warning(
        'classes without a label in the training set', 'add images, or drop the class'
    ),
    'class-not-tested': _note(
        'classes without a label in the validation set', 'their score will be missing'
    ),
    'class-rare': _note(
        'classes with less than a hundredth of the labels of the largest one',
        'expect low scores for them; ClassBalancedDataset or class weights help',
    ),
    # Files.
    'evaluator-file': _error(
        'evaluators that compare with another annotation file than their loader reads',
        'set the ann_file of the evaluator to that of the loader',
    ),
    'annotation-file-broken': _error('annotation files that cannot be read', _COPY_AGAIN),
    'data-set-empty': _error(
        'data sets without a usable image or label', 'check data_prefix, ann_file, suffixes'
    ),
    'not-inspected': _warning(
        'data sets of a type that this tool cannot read', 'validate them by hand'
    ),
    'image-missing': _error(
        'images that do not exist', 'correct data_prefix or file_name, or copy the images'
    ),
    'image-zero-bytes': _error('image files of zero bytes', _COPY_AGAIN),
    'image-unreadable': _error('files that are no image', _COPY_AGAIN),
    'image-truncated': _error('images that break off or are damaged', _COPY_AGAIN),
    'image-deep': _warning(
        'images of more than 8 bits a channel, which are clipped to 8',
        'convert them to 8 bits with a scale of your choice',
    ),
    'image-size': _error(
        'images of another size than annotated',
        'scale the annotations, or restore the images they were made for',
    ),
    'image-rotated-labels': _error(
        'images that their EXIF tag turns, annotated as if it did not',
        'turn the pixels and drop the tag, or turn the annotations',
    ),
    'image-rotated': _note(
        'images that their EXIF tag turns; the loader turns them, other programs may not',
        'check in the contact sheet that the labels fit',
    ),
    'image-repeated': _warning(
        'images whose bytes occur twice in the data set', 'delete the copies'
    ),
    'image-repeated-in-train': _warning(
        'images that are in the training set too: the score will be too good',
        'take them out of one of the two',
    ),
    'image-with-two-labels': _warning(
        'images that occur under two classes', 'delete the wrong one'
    ),
    'image-listed-twice': _warning(
        'images that several entries name', 'unite the entries and their annotations'
    ),
    'image-not-used': _note(
        'image files that are not annotated; nothing reads them', 'annotate or delete them'
    ),
    'image-other-suffix': _warning(
        'files that are skipped because of their suffix',
        'rename them, or set img_suffix (label maps) or extensions (folders) in the data set',
    ),
    'image-outside-folders': _warning(
        'images beside the class folders, which nothing reads', 'move them into a folder'
    ),
    'image-without-labels': _note(
        'images without a label', 'right for background; left out if filter_empty_gt is set'
    ),
    'image-incomplete': _error(
        'image entries without a valid id, file_name, width or height', _WRITE_AGAIN
    ),
    'image-id-repeated': _error('image ids that occur twice', 'give every image an id of its own'),
    'image-crowded': _error(
        'images with more instances than memory can hold',
        'cut the image into pieces, or unite instances into crowds',
    ),
    # Instances.
    'annotation-incomplete': _error('annotations that lack a key', _WRITE_AGAIN),
    'annotation-id-repeated': _error(
        'annotation ids that occur twice', 'number the annotations 1, 2, 3, ...'
    ),
    'annotation-id-zero': _warning(
        'annotations with the id 0, which pycocotools counts as never found',
        'number the annotations from 1',
    ),
    'annotation-image-unknown': _error('annotations of unknown images', _WRITE_AGAIN),
    'annotation-category-unknown': _error('annotations of unknown categories', _WRITE_AGAIN),
    'annotation-repeated': _warning(
        'annotations with the image, category and box of another', 'delete the copies'
    ),
    'box-malformed': _error('boxes that are not four finite numbers', _WRITE_AGAIN),
    'box-without-area': _error('boxes without width or height', _WRITE_AGAIN),
    'box-outside-image': _error(
        'boxes that lie outside their image',
        'boxes are [x, y, width, height] in pixels of the image; check scale and order',
    ),
    'box-beyond-edge': _warning(
        'boxes that reach more than a pixel beyond their image',
        'clip them; if there are many, are they [x1, y1, x2, y2] instead of [x, y, width, height]?',
    ),
    'boxes-are-corners': _error(
        'data sets whose boxes are corners',
        'write [x, y, width, height] in pixels, not [x1, y1, x2, y2]',
    ),
    'boxes-are-fractions': _error(
        'data sets whose boxes are fractions of the image',
        'write [x, y, width, height] in pixels',
    ),
    'box-tiny': _warning(
        'boxes under a pixel wide or high, which are dropped', 'delete or enlarge them'
    ),
    'area-not-positive': _error(
        'annotations without a positive area, which are dropped', 'write the area of the mask'
    ),
    'mask-missing': _error(
        'instances without a mask in a data set that loads masks',
        'add masks, or set with_mask=False and use a detector without mask head',
    ),
    'mask-malformed': _error('polygons or RLE that cannot be decoded', _WRITE_AGAIN),
    'mask-size': _error('RLE masks of another size than their image', _WRITE_AGAIN),
    'mask-empty': _error('masks without a pixel', _WRITE_AGAIN),
    'mask-outside-image': _warning(
        'polygons that reach more than a pixel beyond their image', 'clip them'
    ),
    'mask-box-disagree': _error(
        'masks that do not fill their box, or exceed it', 'compute the box from the mask'
    ),
    # Label maps and folders.
    'label-map-missing': _error(
        'images without a label map', 'check seg_map_path and seg_map_suffix, or add the map'
    ),
    'label-map-unused': _warning('label maps without an image', 'add the image, or delete it'),
    'label-map-unreadable': _error('label maps that cannot be read', _COPY_AGAIN),
    'label-map-mode': _error(
        'label maps that are colour images',
        'save one channel of class numbers (mode L, or P with the numbers as palette indices)',
    ),
    'label-map-size': _error(
        'label maps of another size than their image', 'scale with nearest neighbour'
    ),
    'label-out-of-range': _error(
        'labels that are no class number',
        'number classes from 0 (from 1 with reduce_zero_label=True), 255 where to ignore',
    ),
    'line-malformed': _error(
        "lines that are not 'file number'", 'write one image and its class number a line'
    ),
    # Panoptic maps.
    'segment-missing': _error('segments that their map does not show', _WRITE_AGAIN),
    'segment-unlisted': _warning('areas of a map that no segment describes', _WRITE_AGAIN),
}
# Errors that the libraries do not notice: they would train or evaluate with such data.
LEARNT = frozenset({'mask-box-disagree'})
