"""Answers prompts with a plain-numpy decoder that keeps keys and values: sample.py FOLDER TOKENS_MAX PROMPT..."""

import pathlib
import sys

import numpy as np

from reference import Reference


class Decoder(Reference):
    """The reference, one position at a time, so that long answers are cheap."""

    def start(self) -> None:
        self.keys = [[] for _ in range(self.config["num_hidden_layers"])]
        self.values = [[] for _ in range(self.config["num_hidden_layers"])]
        self.position = 0

    def rotate_at(self, x):
        half = x.shape[-1] // 2
        angles = self.position * self.config["rope_theta"] ** (-np.arange(half, dtype=np.float64) / half)
        cos, sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
        a, b = x[:, :half], x[:, half:]
        return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)

    def attention(self, x, prefix):
        layer, size, kv_heads = int(prefix.rsplit(".", 1)[1]), self.config["head_dim"], self.config["num_key_value_heads"]

        def project(part):
            return (self.weights[f"{prefix}.self_attn.{part}.weight"] @ x).reshape(-1, size)

        query = self.rotate_at(project("q_proj")).reshape(kv_heads, -1, size)
        self.keys[layer].append(self.rotate_at(project("k_proj")))
        self.values[layer].append(project("v_proj"))
        keys, values = np.stack(self.keys[layer], axis=1), np.stack(self.values[layer], axis=1)
        scores = query @ keys.transpose(0, 2, 1) / np.float32(np.sqrt(size))
        scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
        mixed = scores / scores.sum(axis=-1, keepdims=True) @ values
        return self.weights[f"{prefix}.self_attn.o_proj.weight"] @ mixed.reshape(-1)

    def feed(self, token: int):
        x = self.weights["model.embed_tokens.weight"][token]
        for layer in range(self.config["num_hidden_layers"]):
            prefix = f"model.layers.{layer}"
            x = x + self.attention(self.norm(x, f"{prefix}.input_layernorm.weight"), prefix)
            x = x + self.feed_forward(self.norm(x, f"{prefix}.post_attention_layernorm.weight"), prefix)
        self.position += 1
        return self.weights["model.embed_tokens.weight"] @ self.norm(x, "model.norm.weight")

    def answer(self, messages, tokens_max: int, tools=None, temperature=0.0, seed=0) -> tuple:
        """The text, and the number of tokens with the end token."""
        self.start()
        for token in self.encode_chat(self.render(messages, tools)):
            logits = self.feed(token)
        rng, produced = np.random.default_rng(seed), []
        while len(produced) < tokens_max and self.position < self.config["max_position_embeddings"]:
            noise = temperature * rng.gumbel(size=logits.shape) if temperature else 0.0
            produced.append(int(np.argmax(logits + noise)))
            if produced[-1] == self.config["eos_token_id"]:
                break
            logits = self.feed(produced[-1])
        return self.tokenizer.decode(produced), len(produced)


def main() -> None:
    decoder = Decoder(pathlib.Path(sys.argv[1]))
    for prompt in sys.argv[3:]:
        text, tokens = decoder.answer([{"role": "user", "content": prompt}], int(sys.argv[2]))
        print(f"> {prompt}\n{text}\n[{tokens} tokens]\n")


if __name__ == "__main__":
    main()
