"""Masked rows a second per core: ours, TRL's `assistant_only_loss` path, and rendering every prefix, at 40 to 160 steps.

    python -m tests.bench.rendering [ROWS]

All three use one tokenizer and TRL's ChatML template with generation marks, CPU seconds of this process, and rows of
outputs of about 900 characters. TRL's path is the one its trainer maps over rows: template, tokens, masks, then labels.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from datasets import Dataset
from datasets.utils.logging import disable_progress_bar
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
from trl import SFTConfig, SFTTrainer

from stepwell.rendering import IGNORE, Message, Renderer

MODEL = Path(__file__).parents[2] / "jobs" / "base"


def conversation(steps: int, number: int) -> list[Message]:
    """A repair of that many turns."""
    messages = [{"role": "system", "content": "Repair the module."}, {"role": "user", "content": f"Task {number}."}]
    for step in range(steps):
        said = f"THOUGHT: look at {step}.\n\n```bash\nsed -n '{step},{step + 20}p' src/module_{number}.py\n```"
        seen = f"<returncode>0</returncode>\n<output>\n{f'line {number} {step} of the file ' * 40}\n</output>"
        messages += [{"role": "assistant", "content": said}, {"role": "user", "content": seen}]
    return messages[:-1]


def by_prefixes(renderer: Renderer, messages: list[Message]) -> list[int]:
    """Labels as tools without marks make them: the conversation up to each reply, with and without it."""
    labels: list[int] = []
    for i, message in enumerate(messages):
        if message["role"] == "assistant":
            before = renderer.prompt_ids(messages[:i])
            whole = renderer.tokenizer.encode(renderer.text(messages[: i + 1]), add_special_tokens=False).ids
            labels += [IGNORE] * (len(before) - len(labels)) + whole[len(before) :]
    return labels


def timed(work: Callable[[], Any]) -> float:
    """CPU seconds of the quicker of two runs."""
    best = float("inf")
    for _ in range(2):
        started = time.process_time()
        work()
        best = min(best, time.process_time() - started)
    return best


def main(rows: int) -> None:
    """Measure and print a table."""
    disable_progress_bar()
    renderer, tokenizer = Renderer.load(MODEL), AutoTokenizer.from_pretrained(MODEL)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), hidden_size=8, intermediate_size=8,
                                         num_hidden_layers=1, num_attention_heads=1, num_key_value_heads=1))  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:
        settings = SFTConfig(output_dir=scratch, max_length=None, assistant_only_loss=True, bf16=False, use_cpu=True,
                             report_to="none", gradient_checkpointing=False, dataloader_pin_memory=False)  # fmt: skip

        def trl(conversations: list[list[Message]]) -> Any:
            given = Dataset.from_list([{"messages": m} for m in conversations])
            return SFTTrainer(model=model, args=settings, train_dataset=given, processing_class=tokenizer).train_dataset

        trl([conversation(1, 0)])
        print("| steps | tokens a row | ours, rows/s | TRL, rows/s | prefixes, rows/s | ours / TRL | ours / prefixes |")
        print("|---|---|---|---|---|---|---|")
        for steps in (40, 80, 160):
            made = [conversation(steps, i) for i in range(rows)]
            rendered = [renderer.encode(m, [1.0] * steps) for m in made]
            theirs = trl(made)
            assert [r.input_ids for r in rendered] == list(theirs["input_ids"])
            assert [r.labels for r in rendered] == list(theirs["labels"])
            few = made[: max(rows // 10, 1)]
            assert [len(by_prefixes(renderer, m)) for m in few] <= [len(r.labels) for r in rendered]
            ours = timed(lambda made=made, steps=steps: [renderer.encode(m, [1.0] * steps) for m in made]) / rows
            other = timed(lambda made=made: trl(made)) / rows
            prefixes = timed(lambda few=few: [by_prefixes(renderer, m) for m in few]) / len(few)
            print(
                f"| {steps} | {len(rendered[0].input_ids)} | {1 / ours:.1f} | {1 / other:.1f} | {1 / prefixes:.2f} | "
                f"{other / ours:.1f} | {prefixes / ours:.1f} |"
            )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 40)
