"""Writes golden_chips.json: run it when the crop changes on purpose, from the tests folder: python -m apps.golden_chips"""

import base64
import json

import numpy as np

from apps.browsing import EXAMPLE, smaller
from apps.test_twins import GOLDEN, SPECS, a_turned_face, as_task
from mien.vision.align import crop
from mien.vision.image import read_image

image = smaller(read_image(EXAMPLE), 0.15)
rng = np.random.default_rng(3)
cases = []
for spec in SPECS:
    face = a_turned_face(rng, image.shape)
    chip = crop(image, face, spec)
    packed = {"width": chip.shape[1], "height": chip.shape[0], "data": base64.b64encode(chip.tobytes()).decode()}
    cases.append({**as_task(image, face, spec), "chip": packed})
GOLDEN.write_text(json.dumps(cases, indent=1) + "\n")
