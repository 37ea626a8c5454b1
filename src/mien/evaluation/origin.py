"""Where figures come from: the exact data, model and software, as facts by name for a report."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import mien
from mien.data.manifest import Manifest
from mien.files import digest
from mien.runtime.forms import files_of
from mien.spec import ModelSpec

__all__ = ["data_facts", "model_facts", "software_facts"]

_PACKAGES = ("numpy", "scikit-learn", "onnxruntime", "opencv-python-headless")


def data_facts(manifest: Manifest) -> dict[str, str]:
    """The judged rows: source, split, rule, count, its sha256 (`Manifest.fingerprint`); what reading left out; licence."""
    header = manifest.header
    splits = ", ".join(sorted(set(manifest.splits())))
    rule = f", rule {header.rule}" if header.rule else ""
    facts = {
        "data": f"{header.source}, split {splits}{rule}: {len(manifest):,} rows; labels {', '.join(header.labels)}",
        "data, sha256": manifest.fingerprint(),
    }
    if header.left_out:
        facts["data, left out while reading (all splits)"] = "; ".join(
            f"{n:,}: {why}" for why, n in header.left_out.items()
        )
    if header.warnings:
        facts["data, warnings"] = "; ".join(header.warnings)
    if header.licence:
        facts["data, licence"] = header.licence
    return facts


def model_facts(file: Path, spec: ModelSpec | None) -> dict[str, str]:
    """The model (or the table of answers): its file and sha256, what its spec says, and the recipe of a run beside it."""
    files = files_of(file)
    size = sum(part.stat().st_size for part in files) / 1e6
    facts = {"model": f"{' and '.join(part.name for part in files)}, {size:.2f} MB, sha256 {digest(*files)}"}
    if spec is None:
        return {"model": facts["model"] + "; a table of answers, made elsewhere"}
    chip = f"{spec.crop.width}x{spec.crop.height} {spec.crop.colour}, aligned by {spec.crop.align}"
    facts["model, reads"] = f"{chip}; temperature {spec.temperature:g}; affect: {spec.affect}"
    said = {"made by": spec.made_by, "trained on": "; ".join(spec.trained_on), "licence": spec.licence}
    facts |= {f"model, {name}": words for name, words in said.items() if words}
    recipe = file.parent / "recipe.yaml"
    if file.suffix.lower() == ".safetensors" and recipe.is_file():
        facts["model, recipe"] = recipe.read_text(encoding="utf-8").strip()
    return facts


def software_facts() -> dict[str, str]:
    """The versions that computed the figures."""
    found = [f"mien {mien.__version__}", f"Python {platform.python_version()}"]
    for name in _PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return {"software": ", ".join(found)}
