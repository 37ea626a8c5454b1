"""The reader: detector + classifier, for one image, many, or a video."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from numbers import Integral
from os import PathLike
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from mien.errors import ConfigError
from mien.faces import Face, Frame
from mien.runtime.classify import Classifier
from mien.runtime.detect import Detector, open_detector
from mien.runtime.engines import detector_device
from mien.runtime.sessions import Session, open_session
from mien.runtime.store import DEFAULT_MODEL, model_file
from mien.runtime.times import Times
from mien.vision.image import ImageSource, read_image

if TYPE_CHECKING:
    from mien.runtime.watch import Watching

__all__ = ["Reader", "load"]


class Reader:
    """Finds faces and reads their expressions. Faces come largest first; no face is an empty list."""

    def __init__(self, detector: Detector, classifier: Classifier) -> None:
        self.detector, self.classifier, self.times = detector, classifier, Times()

    def __call__(self, image: ImageSource) -> list[Face]:
        """The faces of one image (path, bytes, array or PIL image). Raises ImageError."""
        return self._read(read_image(image))

    def _read(self, image: np.ndarray) -> list[Face]:
        with self.times.stage("detect"):
            faces = self.detector(image)
        with self.times.stage("classify"):
            return self.classifier(image, faces)

    def many(self, images: Iterable[ImageSource]) -> Iterator[list[Face]]:
        """The faces of each image, in order, one image in memory at a time. Raises ImageError at a bad one; ConfigError: one image,
        not several."""
        one = isinstance(images, (str, bytes, bytearray, memoryview, PathLike, Image.Image))
        if one or (isinstance(images, np.ndarray) and (images.ndim == 2 or images.shape[2:] in ((1,), (3,), (4,)))):
            raise ConfigError("many: expected several images, such as a list of paths; of one call the reader itself")
        return map(self, images)

    def watch(
        self,
        source: str | PathLike[str] | int,
        every: int = 1,
        begin: float = 0.0,
        end: float | None = None,
        how: Watching | None = None,
    ) -> Iterator[tuple[Frame, list[Face]]]:
        """Each `every`-th frame of a video file, a folder of pictures, an address or a camera (its number) with its faces,
        which have track numbers: the same person keeps the same number.

        begin, end: seconds.  how: detection every so often, smoothing, another tracker; see mien.runtime.watch.Watching. An
        address is opened once more before, to see whether it is live, unless `how` says.
        Raises ConfigError: an `every` below 1, a `begin` or `end` that is no number, several sources. VideoError: not a video, no camera, or (after the frames that could be decoded)
        cut off.
        """
        from mien.runtime.watch import Watching, watched
        from mien.vision.video import frames, is_live  # PyAV is needed for video alone

        how, moving = how or Watching(), frames(source, every, begin, end)
        if how.live is None:
            how = replace(how, live=is_live(source))
        if every > 1 and not how.live:  # the first step is as long as `every` makes it
            how = replace(how, step=how.step or math.inf)
        return watched(self, moving, how)


def load(
    model: str | PathLike[str] | Session = DEFAULT_MODEL,
    detector: str | Detector = "auto",
    threads: int | None = None,
    detector_file: str | PathLike[str] | None = None,
    min_size: float | None = None,
    explain: bool = False,
    features: bool = False,
    engine: str = "auto",
    device: str = "auto",
) -> Reader:
    """A reader.

    model: a name, a model file, or any Session.  detector: 'auto' (mien-face), 'yunet', 'whole' (the image already is a
    face), or any Detector.  threads: for each engine; all cores by default.  detector_file: a local file in YuNet's form.
    min_size: the smallest face to look for, in pixels; smaller is slower.
    engine, device: what runs the model: 'auto', or onnx, openvino, tensorrt; cpu, cuda, cuda:1, gpu, npu; see
    mien.runtime.engines. The session's `choice` says which it is, and why. The detector runs on ONNX Runtime, on the same
    NVIDIA card or on the CPU.
    explain, features: expressions get their `heat`, their `features` (see mien.runtime.classify.Classifier).
    Raises ModelNotFound, ModelError, ConfigError, MissingExtra.

    >>> import numpy as np
    >>> reader = load(detector="whole", threads=1)
    >>> [face] = reader(np.zeros((48, 48), np.uint8))
    >>> len(face.expression.probabilities)
    8
    >>> print(load(detector="whole", engine="onnx", device="cpu").classifier.session.choice)
    onnx on cpu: asked for
    """
    if threads is not None and (isinstance(threads, bool) or not isinstance(threads, Integral) or threads < 0):
        raise ConfigError(f"threads: {threads!r}: give a whole number from 1 on, or None for all cores")
    for name, asked in (("engine", engine), ("device", device)):
        if not isinstance(asked, str):
            raise ConfigError(
                f"{name}: {asked!r} is no text; give 'auto', or one of those that mien.runtime.engines tells"
            )
    place = "cpu"
    if isinstance(model, (str, PathLike)):
        opened = open_session(model_file(model), threads, engine, device)
        session: Session = opened
        place = detector_device(opened.choice)
    elif (engine, device) != ("auto", "auto"):
        raise ConfigError("engine, device: are for a model's name or file; a session has chosen its own")
    elif isinstance(model, type) or not (hasattr(model, "spec") and hasattr(model, "run")):
        raise ConfigError(f"model: {_named(model)}: give a name, a file or a Session (with `spec` and `run`)")
    else:
        session = model
    classifier = Classifier(session, explain=explain, features=features)
    if isinstance(detector, str):
        detector = open_detector(detector, session.spec.crop, threads, detector_file, min_size, place)
    elif detector_file is not None or min_size is not None:
        raise ConfigError("detector_file, min_size: are for a detector's name; an object has its own")
    elif isinstance(detector, type) or not callable(detector):
        raise ConfigError(
            f"detector: {_named(detector)}: give a name or a Detector (called with an image); a file goes to detector_file"
        )
    return Reader(detector, classifier)


def _named(given: object) -> str:
    """What was given instead, for an error."""
    return f"the class {given.__name__}" if isinstance(given, type) else f"{type(given).__name__} {given!r}"
