"""The ground truth of a data set, in the form that the competition scores."""

from collections.abc import Sequence

from fashion_hydra.data.annotations import Annotations
from fashion_hydra.structures.rle import CocoRLE, resize_runs, runs_to_coco


def truth_on_grid(annotations: Annotations, images: Sequence[int], *, size: int) -> dict[str, dict[str, list[CocoRLE]]]:
    """Return image id -> ClassId, attributes included -> masks on the grid, like `submission.read_masks`.

    Args:
        annotations: the data set.
        images: indices of the images.
        size: height and width of the grid; masks without a pixel on the grid are left out.
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
