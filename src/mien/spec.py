"""What a model file says of itself, and the strict reading of such statements.

Facts travel with the weights: labels and their order, how a chip is cut, licence, figures. Nothing is ever
inferred from a file name or the width of an output.
"""

from __future__ import annotations

import re
from typing import Any, Literal, TypeVar, get_args, get_type_hints

import msgspec

from mien.errors import ConfigError, ModelError, near_miss
from mien.labels import LabelSet

__all__ = [
    "FORMAT",
    "CropSpec",
    "DetectorSpec",
    "EnsembleSpec",
    "Mean",
    "MemberSpec",
    "ModelSpec",
    "Output",
    "decode_spec",
    "encode",
    "strict",
]

#: The version of the model file's form. A file with a higher number needs a newer mien.
FORMAT = 1

Align = Literal["box", "eyes", "five"]
Colour = Literal["rgb", "grey", "lightness"]
Mask = Literal["none", "hull"]
Affect = Literal["none", "circumplex", "trained"]
Mean = Literal["probabilities", "logits"]
Output = Literal["maps", "features"]
Precision = Literal["float32", "float16", "int8"]
Point = tuple[float, float]
T = TypeVar("T")


class CropSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How a face is cut out of an image: data for the one function `mien.vision.align.crop`.

    width, height: of the chip, in pixels, without the border.
    align: 'box' cuts a rectangle around the detector's box, upright as the image is; 'eyes' and 'five' move the two
        eyes, or all five landmarks, onto `points` by a least-squares similarity (turn, scale, shift; no shear).
    points: where the landmarks go, as fractions of the chip's width and height (the order of `Face.landmarks`;
        'eyes' uses the first two). Ignored by 'box'.
    margin: context added on each side, as a fraction of the face rectangle's side: 0.1 makes it 1.2 times as long.
    shift: 'box' only: moves the rectangle's centre by these fractions of its side, right and down.
    border: further pixels kept around the chip when chips are stored for training, to rotate and shift into.
    colour: 'rgb', 'grey' (ITU-R BT.601 luma, three equal channels) or 'lightness' (CIE L*, three equal channels).
    mask: 'hull' blackens everything outside the convex hull of the landmarks.
    """

    width: int
    height: int
    align: Align = "box"
    points: tuple[Point, Point, Point, Point, Point] | None = None
    margin: float = 0.0
    shift: Point = (0.0, 0.0)
    border: int = 0
    colour: Colour = "rgb"
    mask: Mask = "none"

    def __post_init__(self) -> None:
        _require(8 <= self.width <= 1024, "width", "between 8 and 1024 pixels", self.width)
        _require(8 <= self.height <= 1024, "height", "between 8 and 1024 pixels", self.height)
        _require(-0.4 < self.margin <= 4, "margin", "between -0.4 and 4", self.margin)
        _require(0 <= self.border <= 512, "border", "between 0 and 512 pixels", self.border)
        if self.align != "box" and self.points is None:
            raise ValueError(f"align: {self.align!r} needs points: five (x, y) fractions of the chip")


class MemberSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One of the models inside an ensemble's file: its name, how much it counts, and what made it."""

    name: str
    weight: float
    made_by: str = ""


class EnsembleSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How an ensemble's file answers.

    mean: of the members' probabilities, or of their logits (each over its own temperature).
    members: those inside; their weights add up to 1.
    chosen_on: the rows by which the weights were chosen; empty if by none.
    """

    mean: Mean
    members: tuple[MemberSpec, ...]
    chosen_on: str = ""


class ModelSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a model file states about itself; stored in the ONNX file and beside it as JSON.

    labels: the names, in the order of the `probabilities` output.
    affect: how valence and arousal arise: 'trained' (a head learned from annotations), 'circumplex' (the
        expectation of the class means under the probabilities, mien.labels.AFFECT_MEANS) or 'none' (NaN).
    temperature: what the logits are divided by inside the graph; stated, not applied again.
    threshold: the confidence from which an answer counts as certain.
    calibrated_on: the rows by which temperature and threshold were chosen after training, and for what; empty if they
        were not.
    metrics: figures by name; each name says data, split and measure, such as 'ferplus/PublicTest/accuracy'.
    network: the recipe's network section, as text, so that the torch network can be built again.
    expression: False for a model that answers valence and arousal alone; its probabilities are NaN.
    outputs: what the graph gives besides `probabilities` and `affect`, in this order after them: 'maps' (n, c, h', w'),
        the logits that each place of the chip alone would give; 'features' (n, d), the vector before the heads.
    ensemble: for a file that holds several models.
    precision: how the file keeps its weights: 'float16' computes in float32 all the same, 'int8' computes with eight bits.
    quantized_on: the rows by which an int8 file's ranges were set.
    """

    name: str
    labels: tuple[str, ...]
    crop: CropSpec
    format: int = FORMAT
    affect: Affect = "none"
    temperature: float = 1.0
    threshold: float = 0.0
    licence: str = ""
    trained_on: tuple[str, ...] = ()
    metrics: dict[str, float] = {}
    made_by: str = ""
    network: dict[str, Any] = {}
    expression: bool = True
    outputs: tuple[Output, ...] = ()
    calibrated_on: str = ""
    ensemble: EnsembleSpec | None = None
    precision: Precision = "float32"
    quantized_on: str = ""

    def __post_init__(self) -> None:
        LabelSet(self.labels)
        _require(self.temperature > 0, "temperature", "above 0", self.temperature)
        _require(0 <= self.threshold <= 1, "threshold", "between 0 and 1", self.threshold)
        _require(len(set(self.outputs)) == len(self.outputs), "outputs", "each name once", list(self.outputs))


class DetectorSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a face detector's file states about itself; stored like a ModelSpec.

    Input `input`: float32 (n, 3, h, w) BGR 0..255, sides multiples of 32. Outputs: cls, obj, bbox, kps at strides 8, 16, 32,
    as `mien.runtime.detect.decode` reads them.
    threshold: least score of a face.  overlap: intersection over union from which two boxes are one face.
    smallest, largest: heights of faces that the network sees, in pixels.
    long_side: the default length to which a picture's long side is shrunk.
    metrics, licence, trained_on, made_by, network: as in ModelSpec.
    """

    name: str
    format: int = FORMAT
    kind: Literal["detector"] = "detector"
    threshold: float = 0.5
    overlap: float = 0.3
    smallest: float = 12.0
    largest: float = 300.0
    long_side: int = 640
    licence: str = ""
    trained_on: tuple[str, ...] = ()
    metrics: dict[str, float] = {}
    made_by: str = ""
    network: dict[str, Any] = {}

    def __post_init__(self) -> None:
        _require(0 < self.threshold < 1, "threshold", "between 0 and 1", self.threshold)
        _require(0 < self.overlap <= 1, "overlap", "between 0 and 1", self.overlap)
        _require(64 <= self.long_side <= 8192, "long_side", "between 64 and 8192 pixels", self.long_side)


def _require(holds: bool, name: str, expected: str, got: object) -> None:
    if not holds:
        raise ValueError(f"{name}: expected {expected}, got {got}")


def encode(value: msgspec.Struct) -> bytes:
    """The JSON of a spec, indented for people."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2)


S = TypeVar("S", ModelSpec, DetectorSpec)


def decode_spec(text: bytes | str, where: str, kind: type[S] = ModelSpec) -> S:  # type: ignore[assignment]
    """Read a model's (or detector's) spec from JSON. Raises ModelError: no such spec, or one from a newer mien."""
    try:
        plain = msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise ModelError(f"{where}: its mien metadata is not JSON ({error}); the file was altered") from error
    written = plain.get("format") if isinstance(plain, dict) else None
    if isinstance(written, int) and written > FORMAT:
        raise ModelError(f"{where}: written in form {written}, this mien reads up to {FORMAT}; pip install -U mien")
    if isinstance(plain, dict) and (plain.get("kind") == "detector") != (kind is DetectorSpec):
        raise ModelError(
            f"{where}: {'an expression model' if kind is DetectorSpec else 'a face detector'}, not what was asked for"
        )
    try:
        return strict(plain, kind)
    except ConfigError as error:
        raise ModelError(f"{where}: its mien metadata is malformed: {error}") from error


def strict(plain: Any, kind: type[T], root: str = "") -> T:
    """Turn plain data (dicts, lists, numbers) into a typed value, or say where it is wrong.

    Raises ConfigError with a dotted address and the nearest known name:

    >>> strict({"width": 48, "hieght": 48}, CropSpec, "crop")
    Traceback (most recent call last):
        ...
    mien.errors.ConfigError: crop.hieght: unknown key; did you mean 'height'?
    """
    unknown = _unknown_key(plain, kind)
    if unknown:
        *path, key, known = unknown
        raise ConfigError(f"{_dotted(root, *path, key)}: unknown key; {near_miss(key, known)}")
    try:
        return msgspec.convert(plain, kind, strict=True)
    except msgspec.ValidationError as error:
        raise ConfigError(_explain(str(error), plain, kind, root)) from error


def _dotted(*parts: str) -> str:
    return ".".join(part for part in parts if part)


def _unknown_key(plain: Any, kind: Any) -> list[Any] | None:
    """[path..., key, known keys] of the first key that the type does not have."""
    if not (isinstance(plain, dict) and _is_struct(kind)):
        return None
    hints = get_type_hints(kind)
    for key, value in plain.items():
        if key not in hints:
            return [str(key), list(hints)]
        below = _unknown_key(value, _struct_inside(hints[key]))
        if below:
            return [key, *below]
    return None


def _is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def _struct_inside(hint: Any) -> Any:
    """The struct type in a hint such as `LossSection | None`, or the hint itself."""
    return next((kind for kind in get_args(hint) if _is_struct(kind)), hint)


def _explain(message: str, plain: Any, kind: Any, root: str) -> str:
    """msgspec's message, turned round: the dotted address first, then what was expected there."""
    text, _, path = message.partition(" - at `$")
    path = path.rstrip("`").lstrip(".")
    missing = re.search(r"missing required field `(\w+)`", text)
    if missing:
        return f"{_dotted(root, path, missing[1])}: is missing"
    address = _dotted(root, path)
    inner = re.match(r"^(\w+): (.*)$", text)
    if inner:  # raised by a __post_init__, which knows the field
        return f"{_dotted(address, inner[1])}: {inner[2]}"
    choices = _choices(kind, path)
    value = _value_at(plain, path)
    if choices and isinstance(value, str):
        return f"{address}: unknown value {value!r}; {near_miss(value, choices)}"
    return f"{address or 'the file'}: {text[:1].lower() + text[1:]}"


def _choices(kind: Any, path: str) -> list[str]:
    """The words a Literal at a dotted path allows."""
    for part in filter(None, path.split(".")):
        if not _is_struct(kind):
            return []
        kind = _struct_inside(get_type_hints(kind).get(part))
    return [word for word in get_args(kind) if isinstance(word, str)]


def _value_at(plain: Any, path: str) -> Any:
    for part in filter(None, path.split(".")):
        plain = plain.get(part) if isinstance(plain, dict) else None
    return plain
