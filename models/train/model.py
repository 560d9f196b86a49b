"""The network, in JAX: a plain Llama decoder small enough to train on one CPU core.

Shapes: B rows, T positions, D hidden size, H query heads, K key/value heads, C head size, F feed-forward size, V vocabulary.
Weights keep Hugging Face names and the [out, in] layout, so that exporting is only a change of number format.
Deliberately absent: dropout, biases, a separate output matrix (the embedding is used on both sides).
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np


@dataclasses.dataclass(frozen=True)
class Config:
    vocab: int = 1536
    dim: int = 192
    layers: int = 5
    heads: int = 6
    kv_heads: int = 2
    ffn: int = 512
    positions_max: int = 2048
    rope_theta: float = 10000.0
    norm_eps: float = 1e-5

    @property
    def head_dim(self) -> int:
        return self.dim // self.heads


EMBEDDING = "model.embed_tokens.weight"
FINAL_NORM = "model.norm.weight"
QUERY_BLOCK = 128
EMBEDDING_STD = 0.35
FINAL_NORM_START = 0.15
LOOK_BACK_PAIRS = 6
LOOK_BACK_OUTPUT_SCALE = 2.5
COPY_KEY_SCALE = 3.0
COPY_QUERY_SCALE = 3.0
COPY_OUTPUT_SCALE = 8.0


def layer_key(layer: int, part: str) -> str:
    return f"model.layers.{layer}.{part}.weight"


def init_params(config: Config, seed: int) -> dict:
    """Random weights, with a head start: heads that look back and heads that copy exist from the first step."""
    rng = np.random.default_rng(seed)
    kv_dim = config.kv_heads * config.head_dim
    residual_scale = 0.2 / math.sqrt(2 * config.layers)

    def matrix(rows, columns, scale=1.0):
        return rng.normal(0.0, scale / math.sqrt(columns), (rows, columns))

    params = {
        EMBEDDING: rng.normal(0.0, EMBEDDING_STD, (config.vocab, config.dim)),
        FINAL_NORM: np.full(config.dim, FINAL_NORM_START),
    }
    for layer in range(config.layers):
        params |= {
            layer_key(layer, "input_layernorm"): np.ones(config.dim),
            layer_key(layer, "self_attn.q_proj"): matrix(config.dim, config.dim),
            layer_key(layer, "self_attn.k_proj"): matrix(kv_dim, config.dim),
            layer_key(layer, "self_attn.v_proj"): matrix(kv_dim, config.dim),
            layer_key(layer, "self_attn.o_proj"): matrix(config.dim, config.dim, residual_scale),
            layer_key(layer, "post_attention_layernorm"): np.ones(config.dim),
            layer_key(layer, "mlp.gate_proj"): matrix(config.ffn, config.dim),
            layer_key(layer, "mlp.up_proj"): matrix(config.ffn, config.dim),
            layer_key(layer, "mlp.down_proj"): matrix(config.dim, config.ffn, residual_scale),
        }
    init_look_back_heads(config, params, rng)
    init_copy_heads(config, params, rng)
    return {name: jnp.asarray(value, jnp.float32) for name, value in params.items()}


def orthonormal_rows(rng, rows: int, columns: int):
    """Without the first coordinate, which is the same for all tokens."""
    basis, _ = np.linalg.qr(rng.normal(size=(columns - 1, rows)))
    return np.concatenate([np.zeros((rows, 1)), basis.T], axis=1)


def init_look_back_heads(config: Config, params: dict, rng) -> None:
    """The heads of the first layer's first group start by looking exactly 1, 2, 3, … positions back.

    One coordinate of the embedding starts equal for all tokens, so queries and keys can be constants there: rotary pair i
    then scores cos((distance - wanted) * frequency_i), which is largest at the wanted distance.
    """
    size, half = config.head_dim, config.head_dim // 2
    groups = config.heads // config.kv_heads
    constant = 6.0 * EMBEDDING_STD
    params[EMBEDDING][:, 0] = constant
    normed = constant / math.sqrt(EMBEDDING_STD**2 + constant**2 / config.dim)
    amplitude = math.sqrt(8.0 * math.sqrt(size)) / normed
    frequencies = config.rope_theta ** (-np.arange(LOOK_BACK_PAIRS) / half)
    query, key = params[layer_key(0, "self_attn.q_proj")], params[layer_key(0, "self_attn.k_proj")]
    key[:size] = 0.0
    key[:LOOK_BACK_PAIRS, 0] = amplitude
    seen, written = np.split(orthonormal_rows(rng, (1 + groups) * size, config.dim), [size])
    params[layer_key(0, "self_attn.v_proj")][:size] = seen
    params[layer_key(0, "self_attn.o_proj")][:, : groups * size] = LOOK_BACK_OUTPUT_SCALE * EMBEDDING_STD * written.T
    for head in range(groups):
        rows = query[head * size : (head + 1) * size]
        rows[:] = 0.0
        rows[:LOOK_BACK_PAIRS, 0] = amplitude * np.cos((head + 1) * frequencies)
        rows[half : half + LOOK_BACK_PAIRS, 0] = -amplitude * np.sin((head + 1) * frequencies)


def init_copy_heads(config: Config, params: dict, rng) -> None:
    """The second layer's first group starts by looking for a place whose previous token is the present one, and copies what stands there."""
    size, half = config.head_dim, config.head_dim // 2
    seen = params[layer_key(0, "self_attn.v_proj")][:size]
    written = params[layer_key(0, "self_attn.o_proj")][:, :size]
    steady = (np.arange(size) % half >= LOOK_BACK_PAIRS)[:, None]
    copied = orthonormal_rows(rng, size, config.dim)
    params[layer_key(1, "self_attn.k_proj")][:size] = COPY_KEY_SCALE * steady * (written / np.linalg.norm(written, axis=0)).T
    params[layer_key(1, "self_attn.v_proj")][:size] = copied
    for head in range(config.heads // config.kv_heads):
        part = slice(head * size, (head + 1) * size)
        params[layer_key(1, "self_attn.q_proj")][part] = COPY_QUERY_SCALE * steady * seen
        params[layer_key(1, "self_attn.o_proj")][:, part] = COPY_OUTPUT_SCALE * EMBEDDING_STD * copied.T


def count_parameters(params: dict) -> int:
    return sum(int(value.size) for value in params.values())


def rms_norm(x, weight, eps):
    return x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + eps) * weight


def rope_tables(config: Config, positions: int):
    half = config.head_dim // 2
    frequencies = config.rope_theta ** (-np.arange(half) / half)
    angles = np.arange(positions)[:, None] * frequencies[None, :]
    return jnp.asarray(np.cos(angles), jnp.float32), jnp.asarray(np.sin(angles), jnp.float32)


def rotate(x, cos, sin):
    """Rotary embedding in the "rotate half" layout: x is [B, T, heads, C], the tables are [T, C / 2]."""
    first, second = jnp.split(x, 2, axis=-1)
    cos, sin = cos[None, :, None, :], sin[None, :, None, :]
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def attention(params, config, layer, x, tables, segments):
    """Causal attention inside each document, in blocks of queries, each against only the keys that it may see.

    The query heads that share a key/value head are stacked as more rows of one matrix product:
    on one CPU core this layout is several times faster than a five-dimensional einsum.
    """
    rows, length, _ = x.shape
    size = config.head_dim

    def project(part, heads):
        return (x @ params[layer_key(layer, f"self_attn.{part}")].T).reshape(rows, length, heads, size)

    query = rotate(project("q_proj", config.heads), *tables) / math.sqrt(size)
    query = query.reshape(rows, length, config.kv_heads, -1, size).transpose(0, 2, 3, 1, 4)
    key = rotate(project("k_proj", config.kv_heads), *tables).transpose(0, 2, 3, 1)
    value = project("v_proj", config.kv_heads).transpose(0, 2, 1, 3)
    blocks = []
    for start in range(0, length, QUERY_BLOCK):
        end = min(start + QUERY_BLOCK, length)
        block = attend_block(query[:, :, :, start:end], key[..., :end], value[:, :, :end], segments, start)
        blocks.append(block)
    mixed = jnp.concatenate(blocks, axis=3).transpose(0, 3, 1, 2, 4).reshape(rows, length, config.dim)
    return mixed @ params[layer_key(layer, "self_attn.o_proj")].T


def attend_block(query, key, value, segments, start):
    """`query` is [B, K, H / K, block, C], `key` [B, K, C, end], `value` [B, K, end, C]; the result is like `query`."""
    rows, kv_heads, groups, block, size = query.shape
    end = start + block
    causal = np.arange(end)[None, :] <= np.arange(start, end)[:, None]
    visible = causal & (segments[:, start:end, None] == segments[:, None, :end])
    bias = jnp.where(visible, 0.0, -1e9)[:, None, None]
    scores = (query.reshape(rows, kv_heads, groups * block, size) @ key).reshape(rows, kv_heads, groups, block, end)
    weights = jax.nn.softmax(scores + bias, axis=-1)
    return (weights.reshape(rows, kv_heads, groups * block, end) @ value).reshape(query.shape)


def feed_forward(params, layer, x):
    gate = x @ params[layer_key(layer, "mlp.gate_proj")].T
    up = x @ params[layer_key(layer, "mlp.up_proj")].T
    return (jax.nn.silu(gate) * up) @ params[layer_key(layer, "mlp.down_proj")].T


def forward(params, config: Config, tokens, segments):
    """Logits [B, T, V]. `segments` numbers the documents packed into a row; attention never crosses documents."""
    length = tokens.shape[1]
    tables = rope_tables(config, length)
    x = params[EMBEDDING][tokens]
    for layer in range(config.layers):
        normed = rms_norm(x, params[layer_key(layer, "input_layernorm")], config.norm_eps)
        x = x + attention(params, config, layer, normed, tables, segments)
        normed = rms_norm(x, params[layer_key(layer, "post_attention_layernorm")], config.norm_eps)
        x = x + feed_forward(params, layer, normed)
    return rms_norm(x, params[FINAL_NORM], config.norm_eps) @ params[EMBEDDING].T


def weighted_loss(params, config: Config, tokens, segments, weights):
    """Mean cross-entropy in nats of each next token; `weights` [B, T] says how much predicting token t counts."""
    logits = forward(params, config, tokens[:, :-1], segments[:, :-1])
    targets, weights = tokens[:, 1:], weights[:, 1:]
    picked = jnp.take_along_axis(logits, targets[:, :, None], axis=-1)[:, :, 0]
    losses = jax.nn.logsumexp(logits, axis=-1) - picked
    return jnp.sum(losses * weights) / jnp.maximum(jnp.sum(weights), 1.0)
