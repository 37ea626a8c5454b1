"""Values for tests."""

from __future__ import annotations

import cv2
import numpy as np

from mien.faces import Expression, Face
from mien.labels import KNOWN_SETS

LABELS = KNOWN_SETS["affectnet8"]


def an_expression(
    label: str = "happiness", confidence: float = 0.9, valence: float = 0.5, arousal: float = 0.1
) -> Expression:
    """An expression with everything else shared evenly."""
    probabilities = np.full(len(LABELS), (1 - confidence) / (len(LABELS) - 1), np.float32)
    probabilities[LABELS.index(label)] = confidence
    return Expression(LABELS, probabilities, valence, arousal)


def a_face(box=(10.0, 10.0, 50.0, 60.0), **fields) -> Face:
    """A face, with an expression unless told otherwise."""
    return Face(box, **{"score": 0.9, "expression": an_expression(), **fields})


def drawn_face(size: int = 96, mouth: float = 0.3, seed: int = 0) -> np.ndarray:
    """A drawn face: RGB uint8 (size, size, 3); `mouth` bends up (positive) or down."""
    rng = np.random.default_rng(seed)
    image = rng.integers(90, 130, (size, size, 3)).astype(np.uint8)
    s = size / 96
    cv2.ellipse(image, (int(48 * s), int(50 * s)), (int(34 * s), int(44 * s)), 0, 0, 360, (200, 170, 150), -1)
    for x in (33, 63):
        cv2.circle(image, (int(x * s), int(38 * s)), max(1, int(5 * s)), (40, 40, 40), -1)
    xs = np.linspace(32, 64, 20)
    ys = 72 + mouth * 20 * (1 - ((xs - 48) / 16) ** 2) - mouth * 10
    cv2.polylines(image, [(np.stack([xs, ys], 1) * s).astype(np.int32)], False, (120, 30, 40), max(1, int(3 * s)))
    return image


def a_video(path, count: int = 12, size=(96, 64), gaps=None) -> list[float]:
    """A small H.264 file of moving colours; returns the seconds of its frames (uneven if `gaps` are given)."""
    from mien.vision.video import VideoWriter

    times = np.cumsum([0.0, *(gaps or [0.04] * (count - 1))]).tolist()
    with VideoWriter(path, *size, rate=25) as writer:
        for i, seconds in enumerate(times):
            image = np.full((size[1], size[0], 3), 10 * i % 255, np.uint8)
            image[:, : 4 * i + 1] = (200, 50, 50)
            writer.write(image, seconds)
    return times


def a_run(folder, seed: int = 0, labels=LABELS, crop=None, name: str = "tiny", **section):
    """A run folder with the weights of a tiny network that was never trained; returns the folder.

    Its chips are 32 pixels wide, framed as mien.data.synthetic draws faces.
    """
    import msgspec
    import torch

    from mien.data.synthetic import FRAMING
    from mien.labels import LabelSet
    from mien.models.network import build_network
    from mien.models.weights import save_weights
    from mien.sections import NetworkSection
    from mien.spec import ModelSpec

    torch.manual_seed(seed)
    chosen = NetworkSection(**{"backbone": "mien-pico", **section})
    crop = crop or msgspec.structs.replace(FRAMING, width=32, height=32)
    network = build_network(chosen, LabelSet(tuple(labels)), crop)
    with torch.no_grad():
        for parameter in network.parameters():  # so that answers differ from face to face
            parameter.mul_(1.5)
    spec = ModelSpec(
        name=name,
        labels=tuple(labels),
        crop=crop,
        affect=chosen.affect,
        expression=chosen.expression,
        temperature=1.3,
        licence="none",
        trained_on=("nothing",),
        metrics={"drawn/test/accuracy": 0.5, "drawn/test/ece": 0.1},
        made_by=f"seed {seed}",
        network=msgspec.to_builtins(chosen),
    )
    folder.mkdir(parents=True, exist_ok=True)
    save_weights(folder / "weights.safetensors", network, spec)
    return folder
