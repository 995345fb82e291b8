"""The ground truth of a data set, in the form that COCO's average precision uses."""

from collections.abc import Iterator

from fashion_hydra.data.annotations import Annotations
from fashion_hydra.data.class_set import ClassSet
from fashion_hydra.evaluation.coco_ap import TrueMask
from fashion_hydra.structures import rle


def true_masks(annotations: Annotations, image: int, classes: ClassSet) -> Iterator[TrueMask]:
    """Yield an image's objects and crowd regions.

    Args:
        annotations: the data set.
        image: index of the image.
        classes: classes of the labels; objects of other classes are left out.
    """
    label_of = classes.label_of()
    height, width = (int(edge) for edge in annotations.sizes[image])
    for mask in annotations.instances(image):
        if (category := int(annotations.categories[mask])) in label_of:
            encoded = rle.runs_to_coco(annotations.runs_of(mask), height=height, width=width)
            yield TrueMask(label_of[category], encoded, float(annotations.listed_areas[mask]))
    for crowd in annotations.crowds(image):
        if (category := int(annotations.crowd_categories[crowd])) in label_of:
            runs = annotations.crowd_runs_of(crowd)
            encoded = rle.runs_to_coco(runs, height=height, width=width)
            yield TrueMask(label_of[category], encoded, float(rle.runs_area(runs)), crowd=True)
