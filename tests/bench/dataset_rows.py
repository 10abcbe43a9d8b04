"""Token-masked rows from stored steps: a whole build from the log, against TRL's path from the same log and from messages.

    python -m tests.bench.dataset_rows [ROWS]

CPU seconds of this process, by trajectory length. Ours reads events, rebuilds conversations, renders, masks, hashes and writes
rows with their provenance; TRL's templates, tokenises and masks messages in memory, for which `from the log` also reads events
and rebuilds conversations. Both give the same ids and labels. The last column renders the conversation up to every reply, as
tools do that know no other way to find replies.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from datasets import Dataset
from datasets.utils.logging import disable_progress_bar
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
from trl import SFTConfig, SFTTrainer

from stepwell.conversation import READS, conversations
from stepwell.datasets.build import build
from stepwell.lake import Lake
from stepwell.log import EventLog
from stepwell.recipe import Recipe
from stepwell.rendering import Renderer
from tests.bench.long_log import CORPUS, write
from tests.bench.rendering import MODEL, by_prefixes


def main(rows: int) -> None:
    """Measure and print a table."""
    disable_progress_bar()
    renderer, tokenizer = Renderer.load(MODEL), AutoTokenizer.from_pretrained(MODEL)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), hidden_size=8, intermediate_size=8,
                                         num_hidden_layers=1, num_attention_heads=1, num_key_value_heads=1))  # fmt: skip
    settings = {"name": "bench", "source": {"corpora": [CORPUS]}, "dataset": {"method": "all", "max_length": 1 << 20}}
    with tempfile.TemporaryDirectory() as scratch:
        arguments = SFTConfig(output_dir=scratch, max_length=None, assistant_only_loss=True, bf16=False, use_cpu=True,
                              report_to="none", gradient_checkpointing=False, dataloader_pin_memory=False)  # fmt: skip

        def trl(conversations: list[Any]) -> Any:
            given = Dataset.from_list([{"messages": m} for m in conversations])
            return SFTTrainer(
                model=model, args=arguments, train_dataset=given, processing_class=tokenizer
            ).train_dataset

        trl([[{"role": "user", "content": "warm"}, {"role": "assistant", "content": "up"}]])
        print(
            "| steps | tokens a row | ours, ms a step | TRL from the log, ms a step | TRL, ms a step | prefixes, ms a step "
            "| TRL from the log / ours | TRL / ours | prefixes / ours |"
        )
        print("|---|---|---|---|---|---|---|---|---|")
        for steps in (40, 80, 160):
            lake = Lake(Path(scratch) / f"lake-{steps}")
            write(lake, range(rows), steps)
            begun = time.process_time()
            built = build(lake, Recipe.model_validate(settings), renderer, "all@1")
            ours = time.process_time() - begun
            stored = lake.read(built.table).sort_by("row_id").to_pylist()
            messages = [json.loads(row["messages"]) for row in stored]
            begun = time.process_time()
            read = [chat.messages for events in EventLog(lake).batches(
                [row["trajectory_id"] for row in stored], columns=READS) for chat in conversations(events)]  # fmt: skip
            reading = time.process_time() - begun
            assert len(read) == len(messages)
            begun = time.process_time()
            theirs = trl(messages)
            other = time.process_time() - begun
            assert [row["input_ids"] for row in stored] == list(theirs["input_ids"])
            assert [row["labels"] for row in stored] == list(theirs["labels"])
            few = messages[: max(rows // 20, 1)]
            begun = time.process_time()
            for one in few:
                by_prefixes(renderer, one)
            prefixes = (time.process_time() - begun) / sum(len(row["steps"]) for row in stored[: len(few)])
            n = built.funnel[0]["steps"]
            each = (1000 * ours / n, 1000 * (reading + other) / n, 1000 * other / n, 1000 * prefixes)
            told = " | ".join(f"{ms:.3f}" for ms in each)
            ratios = f"{(reading + other) / ours:.2f} | {other / ours:.2f} | {prefixes * n / ours:.1f}"
            print(f"| {steps} | {built.n_tokens // rows} | {told} | {ratios} |", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
