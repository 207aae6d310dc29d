"""Label Studio's tasks: lungs as predictions that a person corrects, and what its JSON export says of them.

https://labelstud.io/guide/export (its "JSON"), https://labelstud.io/tags (PolygonLabels, BrushLabels)

Shapes
    labels   uint8 [height, width], 0 background, else the category id
    polygon  list of float, x, y, x, y, ... in pixels of the film; Label Studio has pairs in percent of its sides
    packed   uint8 [bytes], a brush's mask: the run lengths of RGBA values, in the format rle-pack
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from mask_rcnn.dataset.outlines import check_size
from mask_rcnn.dataset.run_lengths import compress, decode_mask
from mask_rcnn.lungs import CATEGORIES

POLYGON, BRUSH = "polygon", "brush"  # names of the controls in CONFIG

_LABELS = "".join(f'<Label value="{name}"/>' for name in CATEGORIES.values())
CONFIG = f"""<View>
  <Image name="image" value="$image" zoom="true" zoomControl="true" brightnessControl="true" contrastControl="true"/>
  <PolygonLabels name="{POLYGON}" toName="image" strokeWidth="2" opacity="0.2">{_LABELS}</PolygonLabels>
  <BrushLabels name="{BRUSH}" toName="image">{_LABELS}</BrushLabels>
</View>
"""

_CHANNELS = 4  # a brush's mask has the colour of its label, and how opaque it is last


def task(
    image_id: int, image: str, size: tuple[int, int], polygons: Mapping[int, Iterable[Sequence[float]]]
) -> dict[str, Any]:
    """A task: a film, and its lungs as a prediction, which Label Studio shows and a person corrects.

    Args:
        image_id: of the film; comes back in the export.
        image: what Label Studio fetches.
        size: of the film, (height, width).
        polygons: by category id.
    """
    height, width = size
    per_cent = np.array([100 / width, 100 / height])
    result = [
        {
            "id": f"{category}-{number}", "type": "polygonlabels", "from_name": POLYGON, "to_name": "image",
            "original_width": width, "original_height": height, "image_rotation": 0,
            "value": {"points": (np.reshape(polygon, (-1, 2)) * per_cent).round(5).tolist(), "closed": True,
                      "polygonlabels": [CATEGORIES[category]]},
        }
        for category, parts in sorted(polygons.items()) for number, polygon in enumerate(parts)
    ]  # fmt: skip
    return {"data": {"image": image, "image_id": image_id}, "predictions": [{"model_version": "machine", "result": result}]}


def is_export(content: Any) -> bool:
    """Whether a JSON is an export of tasks."""
    return isinstance(content, list) and bool(content) and all(
        isinstance(item, dict) and isinstance(item.get("data"), dict) for item in content
    )


def labels_of(exported: Mapping[str, Any]) -> np.ndarray | None:
    """The lungs of a task as a person left them; None of one that nobody has submitted.

    Of several annotations the one changed last counts.

    Raises:
        ValueError: they cannot be read, in words.
        AttributeError, LookupError, TypeError: they are none of Label Studio's at all.
    """
    annotations = exported.get("annotations")
    given = annotations if isinstance(annotations, list) else []
    done = [item for item in given if isinstance(item, dict) and not item.get("was_cancelled")]
    if not done:
        return None
    latest = max(done, key=lambda item: str(item.get("updated_at") or item.get("created_at") or ""))
    labels: np.ndarray | None = None
    numbers = {name: category for category, name in CATEGORIES.items()}
    for region in latest["result"]:
        value = region.get("value") or {}
        names = value.get("polygonlabels") or value.get("brushlabels")
        if not names:  # choices, texts and the like
            continue
        if names[0] not in numbers:
            raise ValueError(f"its label {names[0]!r} is none of {', '.join(numbers)}")
        height, width = check_size([region.get("original_height"), region.get("original_width")])
        if region.get("image_rotation"):
            raise ValueError("its image is turned; turn it back")
        mask = _polygon(value, height, width) if "points" in value else unpack(value.get("rle"), height, width)
        labels = np.zeros((height, width), np.uint8) if labels is None else labels
        if labels.shape != mask.shape:
            raise ValueError("its regions are of films of several sizes")
        labels[mask] = numbers[names[0]]
    if labels is None:
        raise ValueError("no lung is left in it")
    return labels


def _polygon(value: Mapping[str, Any], height: int, width: int) -> np.ndarray:
    try:
        points = np.asarray(value["points"], float).reshape(-1, 2) * (width / 100, height / 100)
    except (TypeError, ValueError) as error:
        raise ValueError("a polygon's corners are no pairs of numbers") from error
    return decode_mask(compress([points.ravel().tolist()], (height, width)))


def unpack(packed: Any, height: int, width: int) -> np.ndarray:
    """The mask, bool [height, width], of a brush: what is not wholly transparent.

    rle-pack (https://github.com/thi-ng/umbrella/tree/develop/packages/rle-pack): 32 bits with the number of values, 5 with
    the bits of a value less 1, four times 4 with the bits of a length less 1. Then blocks: a bit, 1 where one value is
    repeated; 2 bits that choose among the four; the length less 1; and that value once, or as many values.

    Raises:
        ValueError: it is none, torn, or of another size.
    """
    if not isinstance(packed, list) or not all(isinstance(byte, int) and 0 <= byte < 256 for byte in packed):
        raise ValueError("a brush's mask is no list of bytes")
    bits = np.unpackbits(np.array(packed, np.uint8))
    at = 0

    def read(count: int) -> int:
        nonlocal at
        if at + count > len(bits):
            raise ValueError("a brush's mask is torn: cut off")
        at += count
        return int.from_bytes(np.packbits(np.pad(bits[at - count : at], (-count % 8, 0))).tobytes(), "big")

    count, value_bits = read(32), read(5) + 1
    length_bits = [read(4) + 1 for _ in range(4)]
    if count != height * width * _CHANNELS or value_bits != 8:
        raise ValueError(f"a brush's mask has {count} values of {value_bits} bits, and not {_CHANNELS} of 8 bits a pixel")
    values = np.zeros(count, np.uint8)
    place = 0
    while place < count:
        repeated = read(1)
        length = read(length_bits[read(2)]) + 1
        if place + length > count:
            raise ValueError("a brush's mask is torn: too long")
        if repeated:
            values[place : place + length] = read(8)
        else:
            if at + 8 * length > len(bits):
                raise ValueError("a brush's mask is torn: cut off")
            values[place : place + length] = np.packbits(bits[at : at + 8 * length])
            at += 8 * length
        place += length
    return values.reshape(height, width, _CHANNELS)[..., -1] > 0
