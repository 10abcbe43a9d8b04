"""Model directories for tests: published chat templates, as TRL keeps them, with small tokenizers of the models' shape."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

PLAIN = (
    "{%- for m in messages %}{{- '\\n' + m['role'] | capitalize + ': ' + m['content'] }}"
    "{%- if m['role'] == 'assistant' %}{{- eos_token }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '\\nAssistant: ' }}{%- endif %}"
)
"""Roles as words and no token that opens a message."""
_QWEN = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
_LLAMA = [
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<|eom_id|>",
]
_WORDS = ["<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"]
SPECIAL = {"qwen3": _QWEN, "qwen3_6": _QWEN, "qwen2_5": _QWEN, "llama3": _LLAMA, "llama3_1": _LLAMA, "llama3_2": _LLAMA,
           "plain": ["</s>"]}  # fmt: skip
"""Model family -> its special tokens. Qwen 2.5 writes ChatML."""
_SPLIT = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
"""How these models cut text into words: line ends stay together, with what precedes them."""
_TEXT = (
    "Repair mod.py: the tool said user assistant system return def x = 1, name arguments path view, Grüße 0123456789.\n\n\n"
    * 20
)


def published(name: str) -> str:
    """A template by the name of TRL's file; the plain one is our own."""
    if name == "plain":
        return PLAIN
    spec = find_spec("trl")
    assert spec
    assert spec.origin
    return (Path(spec.origin).parent / "chat_templates" / f"{name}.jinja").read_text(encoding="utf-8")


def make(name: str, folder: Path) -> Path:
    """A directory with the tokenizer and template of a family."""
    special = SPECIAL[name]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC() if special is _QWEN else None  # as Qwen's has it
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=340,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([_TEXT], trainer)
    if special is _QWEN:
        tokenizer.add_tokens([AddedToken(w, special=False, normalized=False) for w in _WORDS])
    end = {3: "<|im_end|>", 6: "<|eot_id|>", 1: "</s>"}[len(special)]
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=end,
        bos_token=None if special is _QWEN else special[0],
        pad_token=special[0],
    )
    fast.chat_template = published(name)
    fast.save_pretrained(folder)
    return folder


def call(name: str, arguments: str, number: int = 0) -> dict[str, object]:
    """A tool call as the log keeps it: arguments as a JSON string."""
    return {"id": f"call_{number}", "type": "function", "function": {"name": name, "arguments": arguments}}
