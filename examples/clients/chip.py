"""Cuts the largest face of a photograph as a model wants it, for the clients here.

python chip.py PHOTO CHIP.ppm [MODEL]
"""

import sys

import mien
from mien.vision.image import read_image

photo, place, *model = sys.argv[1:]
reader = mien.load(*model, threads=1)
image = read_image(photo)
chip = reader.classifier.chip(image, reader.detector(image)[0])  # uint8 (height, width, 3), RGB
with open(place, "wb") as file:
    file.write(b"P6\n%d %d\n255\n" % (chip.shape[1], chip.shape[0]) + chip.tobytes())
