"""An independent plain-numpy forward pass in float32. It reads only the shipped folder and writes reference.json.

The engine in the binary is checked against these figures: token ids, logits, and greedy continuations.
No key/value cache, no batching, no shared code with the trainer: slow and easy to believe.
"""

import json
import pathlib
import sys

import jinja2
import ml_dtypes  # noqa: F401 (gives numpy the bfloat16 of the weight file)
import numpy as np
from safetensors import safe_open
from tokenizers import Tokenizer

PROMPTS = [
    ("chat", [{"role": "user", "content": "What is Sublet?"}]),
    ("chat", [
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hello! How can I help you?"},
        {"role": "user", "content": "Count from 1 to 20."},
    ]),
    ("text", "Once upon a time"),
    ("text", "1, 2, 3, 4, 5, 6, 7, 8, 9, 10,"),
]
CONTINUATION_TOKENS = 24
LOGITS_KEPT = 8
VECTOR_VALUES_KEPT = 8


def load_weights(path: pathlib.Path) -> dict:
    with safe_open(path, framework="numpy") as file:
        return {name: file.get_tensor(name).astype(np.float32) for name in file.keys()}


class Reference:
    def __init__(self, folder: pathlib.Path):
        self.config = json.loads((folder / "config.json").read_text())
        self.weights = load_weights(folder / "model.safetensors")
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.settings = json.loads((folder / "tokenizer_config.json").read_text())

    def render(self, messages, tools=None) -> str:
        template = jinja2.Environment().from_string(self.settings["chat_template"])
        return template.render(
            messages=messages, tools=tools, bos_token=self.settings["bos_token"], add_generation_prompt=True
        )

    def encode_chat(self, text: str) -> list:
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def norm(self, x, name):
        scale = 1.0 / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + np.float32(self.config["rms_norm_eps"]))
        return x * scale * self.weights[name]

    def rotate(self, x):
        """x is [heads, T, C]: dimension i turns together with dimension i + C / 2."""
        half = x.shape[-1] // 2
        frequencies = self.config["rope_theta"] ** (-np.arange(half, dtype=np.float64) / half)
        angles = np.arange(x.shape[1], dtype=np.float64)[:, None] * frequencies
        cos, sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
        a, b = x[..., :half], x[..., half:]
        return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)

    def attention(self, x, prefix):
        length, size = x.shape[0], self.config["head_dim"]
        heads, kv_heads = self.config["num_attention_heads"], self.config["num_key_value_heads"]

        def project(part, count):
            y = x @ self.weights[f"{prefix}.self_attn.{part}.weight"].T
            return y.reshape(length, count, size).transpose(1, 0, 2)

        query, key = self.rotate(project("q_proj", heads)), self.rotate(project("k_proj", kv_heads))
        value = project("v_proj", kv_heads)
        outputs = []
        for head in range(heads):
            shared = head // (heads // kv_heads)
            scores = query[head] @ key[shared].T / np.float32(np.sqrt(size))
            scores = np.where(np.tril(np.ones((length, length), bool)), scores, np.float32(-np.inf))
            scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
            outputs.append(scores / scores.sum(axis=-1, keepdims=True) @ value[shared])
        return np.concatenate(outputs, axis=-1) @ self.weights[f"{prefix}.self_attn.o_proj.weight"].T

    def feed_forward(self, x, prefix):
        gate = x @ self.weights[f"{prefix}.mlp.gate_proj.weight"].T
        up = x @ self.weights[f"{prefix}.mlp.up_proj.weight"].T
        return (gate / (1.0 + np.exp(-gate)) * up) @ self.weights[f"{prefix}.mlp.down_proj.weight"].T

    def states(self, ids) -> np.ndarray:
        """What the last layer makes of every position, after the final norm, [T, H]."""
        x = self.weights["model.embed_tokens.weight"][np.asarray(ids)]
        for layer in range(self.config["num_hidden_layers"]):
            prefix = f"model.layers.{layer}"
            x = x + self.attention(self.norm(x, f"{prefix}.input_layernorm.weight"), prefix)
            x = x + self.feed_forward(self.norm(x, f"{prefix}.post_attention_layernorm.weight"), prefix)
        return self.norm(x, "model.norm.weight")

    def logits(self, ids) -> np.ndarray:
        """Logits of the last position, [V]."""
        return self.states(ids)[-1] @ self.weights["model.embed_tokens.weight"].T

    def continue_greedily(self, ids, count) -> list:
        """Stops early after the end token, which is kept."""
        produced = []
        while len(produced) < count:
            produced.append(int(np.argmax(self.logits(ids + produced))))
            if produced[-1] == self.config["eos_token_id"]:
                break
        return produced


def describe_vector(values: np.ndarray) -> dict:
    """A pooled state at length 1: its first values, and two sums over all."""
    unit = values.astype(np.float64) / np.linalg.norm(values.astype(np.float64))
    return {
        "first": [round(float(value), 6) for value in unit[:VECTOR_VALUES_KEPT]],
        "sum": round(float(unit.sum()), 5),
        "sum_of_sizes": round(float(np.abs(unit).sum()), 5),
    }


def describe(reference: Reference, kind: str, prompt) -> dict:
    if kind == "chat":
        text = reference.render(prompt)
        ids = reference.encode_chat(text)
        entry = {"messages": prompt, "rendered": text}
    else:
        ids = reference.tokenizer.encode(prompt).ids
        entry = {"text": prompt}
    logits = reference.logits(ids).astype(np.float64)
    states = reference.states(ids)
    top = logits.max()
    continuation = reference.continue_greedily(ids, CONTINUATION_TOKENS)
    return entry | {
        "ids": ids,
        "logits_first": [round(float(value), 5) for value in logits[:LOGITS_KEPT]],
        "argmax": int(logits.argmax()),
        "logit_max": round(float(top), 5),
        "logsumexp": round(float(top + np.log(np.exp(logits - top).sum())), 5),
        "vector_mean": describe_vector(states.mean(axis=0)),
        "vector_last": describe_vector(states[-1]),
        "greedy_ids": continuation,
        "greedy_text": reference.tokenizer.decode(continuation, skip_special_tokens=False),
    }


def main() -> None:
    folder = pathlib.Path(sys.argv[1])
    reference = Reference(folder)
    entries = [describe(reference, kind, prompt) for kind, prompt in PROMPTS]
    note = (
        "Computed in float32 by models/train/reference.py from this folder's bf16 weights. Chat prompts are encoded "
        "without adding special tokens (the template has already written them), text prompts with."
    )
    text = json.dumps({"note": note, "prompts": entries}, indent=1, ensure_ascii=False)
    (folder / "reference.json").write_text(text + "\n")
    for entry in entries:
        print(repr(entry.get("text") or entry["messages"][-1]["content"]), "->", repr(entry["greedy_text"]))


if __name__ == "__main__":
    main()
