"""Rendering: ids equal to the template's own, loss exactly on the chosen replies with their closing token."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from jobs.tokenizer import train_tokenizer
from stepwell.errors import RenderError, UsageError
from stepwell.rendering import IGNORE, Renderer

LLAMA_3 = (
    "{{- bos_token }}{%- for m in messages %}{{- '<|start_header_id|>' + m['role'] + '<|end_header_id|>\\n\\n' "
    "+ m['content'] | trim + '<|eot_id|>' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}"
)
CHAT = [
    {"role": "system", "content": "Repair mod.py."},
    {"role": "user", "content": "Grüße 🙂\n"},
    {"role": "assistant", "content": "THOUGHT: Look.\n\n```bash\nview\n```"},
    {"role": "user", "content": "<returncode>0</returncode>\n<output>\n1: x\n</output>"},
    {"role": "assistant", "content": "THOUGHT: Done — wirklich.\n\n```bash\nsubmit\n```"},
]


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("embedded")
    train_tokenizer([m["content"] for m in CHAT] * 20, 400).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llama")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=350, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([m["content"] for m in CHAT], trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<|begin_of_text|>", eos_token="<|eot_id|>")
    fast.chat_template = LLAMA_3
    fast.save_pretrained(folder)
    return folder


def test_ids_and_labels_equal_the_generation_marks(embedded: Path) -> None:
    reference = AutoTokenizer.from_pretrained(embedded).apply_chat_template(
        CHAT, return_dict=True, return_assistant_tokens_mask=True
    )
    rendered = Renderer.load(embedded).encode(CHAT, [1, 1])
    assert rendered.input_ids == reference["input_ids"]
    assert [int(label != IGNORE) for label in rendered.labels] == reference["assistant_masks"]


def test_prompt_ids_equal_the_generation_prompt(embedded: Path, llama: Path) -> None:
    for folder in (embedded, llama):
        tokenizer = AutoTokenizer.from_pretrained(folder)
        wanted = tokenizer.apply_chat_template(CHAT[:2], add_generation_prompt=True, return_dict=True)["input_ids"]
        assert Renderer.load(folder).prompt_ids(CHAT[:2]) == wanted


def test_a_rejected_step_stays_in_the_context_and_leaves_the_loss(embedded: Path) -> None:
    renderer = Renderer.load(embedded)
    both, second = renderer.encode(CHAT, [1, 1]), renderer.encode(CHAT, [0, 1])
    assert both.input_ids == second.input_ids
    assert renderer.trained_text(second) == [CHAT[4]["content"] + "<|im_end|>"]


def test_llama_3_style_template_without_marks(llama: Path) -> None:
    renderer = Renderer.load(llama)
    rendered = renderer.encode(CHAT, [1, 0])
    assert renderer.trained_text(rendered) == [CHAT[2]["content"] + "<|eot_id|>"]
    assert renderer.text(CHAT).startswith("<|begin_of_text|>")


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.lists(st.tuples(st.text(max_size=40), st.text(max_size=40), st.booleans()), min_size=1, max_size=5))
def test_any_text_any_weights(embedded: Path, turns: list[tuple[str, str, bool]]) -> None:
    renderer = Renderer.load(embedded)
    messages = [{"role": "system", "content": "s"}]
    for asked, said, _ in turns:
        messages += [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]
    rendered = renderer.encode(messages, [float(w) for _, _, w in turns])
    assert renderer.tokenizer.decode(rendered.input_ids, skip_special_tokens=False) == renderer.text(messages)
    for (start, end), (_, said, weight) in zip(rendered.spans, turns, strict=True):
        assert (
            renderer.tokenizer.decode(rendered.input_ids[start:end], skip_special_tokens=False) == said + "<|im_end|>"
        )
        assert rendered.labels[start:end] == (rendered.input_ids[start:end] if weight else [IGNORE] * (end - start))
    inside = {i for start, end in rendered.spans for i in range(start, end)}
    assert all(label == IGNORE for i, label in enumerate(rendered.labels) if i not in inside)


def test_a_template_that_rewrites_replies_is_refused(embedded: Path) -> None:
    renderer = Renderer.load(embedded)
    rewriting = renderer.template.replace("message['content']", "(message['content'] | upper)")
    with pytest.raises(RenderError, match=r"does not write reply|differently here"):
        Renderer(renderer.tokenizer, rewriting, renderer.special, "rewriting").encode(CHAT, [1, 1])


def test_errors_name_the_next_act(tmp_path: Path, embedded: Path) -> None:
    with pytest.raises(UsageError, match=r"no tokenizer\.json; name a model directory"):
        Renderer.load(tmp_path)
    with pytest.raises(RenderError, match="2 assistant messages but 1 weights"):
        Renderer.load(embedded).encode(CHAT, [1])
