"""The two lungs: their ids, names and sides, in one place.

``left_lung`` and ``right_lung`` are the patient's, so on a frontal film the left lung lies on the image's right; a dataset
made with ``--laterality image`` names them by image side, and says so in its ``info``.
"""

from __future__ import annotations

LEFT_LUNG, RIGHT_LUNG = 1, 2
CATEGORIES = {LEFT_LUNG: "left_lung", RIGHT_LUNG: "right_lung"}
SIDES = {category: name.removesuffix("_lung") for category, name in CATEGORIES.items()}
