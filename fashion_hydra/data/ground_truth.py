"""The truth of a data set's images as the competition scores it."""

from collections.abc import Sequence

from fashion_hydra.data.annotations import Annotations
from fashion_hydra.structures.rle import CocoRLE, resize_runs, runs_to_coco


def truth_on_grid(annotations: Annotations, images: Sequence[int], *, size: int) -> dict[str, dict[str, list[CocoRLE]]]:
    """Image id -> ClassId, attributes included -> masks on the grid, as `submission.read_masks` reads them.

    Args:
        annotations: the data set.
        images: indices.
        size: height and width of the grid; masks that have no pixel on it are left out.
    """
    truth: dict[str, dict[str, list[CocoRLE]]] = {}
    for image in images:
        height, width = (int(edge) for edge in annotations.sizes[image])
        of_image = truth[str(annotations.image_ids[image])] = {}
        for mask in annotations.instances(image):
            runs = annotations.runs_of(mask)
            small = resize_runs(runs, height=height, width=width, new_height=size, new_width=size)
            if len(small):
                encoded = runs_to_coco(small, height=size, width=size)
                of_image.setdefault(str(annotations.class_ids[mask]), []).append(encoded)
    return truth
