"""Writes the model folder in Hugging Face format: tokenizer, settings, chat template, bf16 weights."""

import json
import pathlib

import ml_dtypes
import numpy as np
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

BOS, START, END = "<|bos|>", "<|im_start|>", "<|im_end|>"
SPECIAL_TOKENS = [BOS, START, END]

CHAT_TEMPLATE = """\
{%- macro text_of(content) -%}
{%- if content is string -%}{{ content }}
{%- elif content -%}{%- for part in content -%}{%- if part.type == 'text' -%}{{ part.text }}{%- endif -%}{%- endfor -%}
{%- endif -%}
{%- endmacro -%}
{{- bos_token -}}
{%- if tools -%}
{{- '<|im_start|>system\\nTools:\\n' -}}
{%- for tool in tools -%}
{{- tool.function.name -}}({%- if tool.function.parameters and tool.function.parameters.properties -%}
{%- for name in tool.function.parameters.properties -%}
{{- name -}}{%- if not loop.last -%}{{- ', ' -}}{%- endif -%}
{%- endfor -%}
{%- endif -%}){{- '\\n' -}}
{%- endfor -%}
{{- '<|im_end|>\\n' -}}
{%- endif -%}
{%- for message in messages -%}
{{- '<|im_start|>' + message.role + '\\n' -}}
{{- text_of(message.content) -}}
{%- if message.tool_calls -%}
{%- for call in message.tool_calls -%}
{{- '<tool_call>{"name": "' + call.function.name + '", "arguments": ' -}}
{%- if call.function.arguments is string -%}{{- call.function.arguments -}}
{%- else -%}{{- call.function.arguments | tojson -}}{%- endif -%}
{{- '}</tool_call>' -}}
{%- endfor -%}
{%- endif -%}
{{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""


def train_tokenizer(texts, vocab: int) -> Tokenizer:
    """A byte-level BPE in which every digit is a token of its own, so that counting and sums can be learnt."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False),
    ])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=[AddedToken(token, special=True) for token in SPECIAL_TOKENS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, tokenizer.token_to_id(BOS))]
    )
    return tokenizer


def write_json(path: pathlib.Path, value) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_settings(folder: pathlib.Path, config, tokenizer: Tokenizer) -> None:
    bos, end = tokenizer.token_to_id(BOS), tokenizer.token_to_id(END)
    write_json(folder / "config.json", {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": bos,
        "eos_token_id": end,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "hidden_size": config.dim,
        "initializer_range": 0.02,
        "intermediate_size": config.ffn,
        "max_position_embeddings": config.positions_max,
        "mlp_bias": False,
        "num_attention_heads": config.heads,
        "num_hidden_layers": config.layers,
        "num_key_value_heads": config.kv_heads,
        "pretraining_tp": 1,
        "rms_norm_eps": config.norm_eps,
        "rope_scaling": None,
        "rope_theta": config.rope_theta,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "vocab_size": config.vocab,
    })
    write_json(folder / "generation_config.json", {
        "bos_token_id": bos,
        "eos_token_id": end,
        "pad_token_id": end,
        "do_sample": True,
        "temperature": 0.6,
        "top_p": 0.9,
    })
    write_json(folder / "tokenizer_config.json", {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "added_tokens_decoder": {
            str(tokenizer.token_to_id(token)): {
                "content": token, "lstrip": False, "normalized": False,
                "rstrip": False, "single_word": False, "special": True,
            }
            for token in SPECIAL_TOKENS
        },
        "add_bos_token": True,
        "add_eos_token": False,
        "additional_special_tokens": [START],
        "bos_token": BOS,
        "eos_token": END,
        "pad_token": END,
        "unk_token": None,
        "clean_up_tokenization_spaces": False,
        "model_max_length": config.positions_max,
        "chat_template": CHAT_TEMPLATE,
    })
    tokenizer.save(str(folder / "tokenizer.json"))


def write_weights(folder: pathlib.Path, params: dict) -> None:
    """Rounds to bf16. The output matrix is the embedding (tied), so it is not stored twice."""
    rounded = {name: np.asarray(value).astype(ml_dtypes.bfloat16) for name, value in params.items()}
    save_file(dict(sorted(rounded.items())), folder / "model.safetensors", metadata={"format": "pt"})


def export(folder: pathlib.Path, config, tokenizer: Tokenizer, params: dict) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_settings(folder, config, tokenizer)
    write_weights(folder, params)
    (folder / "model.safetensors").chmod(0o644)
