"""Trains the model and writes the model folder. Deterministic: same inputs and versions, same file.

Usage: train.py FOLDER [--documents N] [--steps N]. Progress, with the loss in nats per token, goes to stdout.
"""

import argparse
import math
import pathlib
import pickle
import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

import corpus
import export
import model
import packing

SEED = 20250
HELD_OUT_DOCUMENTS = 800
MATRIX_RATE = 0.01
VECTOR_RATE = 0.003
MOMENTUM = 0.95
WARMUP_STEPS = 30
DECAY_SHARE = 0.9
WEIGHT_DECAY = 0.02


def is_matrix(name: str) -> bool:
    return "proj" in name


def orthogonalize(gradient):
    """Newton-Schulz iteration: the nearest matrix with all singular values close to one (the Muon update)."""
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = gradient.shape[0] > gradient.shape[1]
    x = gradient.T if tall else gradient
    x = x / (jnp.linalg.norm(x) + 1e-7)
    for _ in range(5):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if tall else x


def learning_scale(step, steps):
    warm = jnp.minimum(1.0, (step + 1) / WARMUP_STEPS)
    decay = jnp.clip((steps - step) / (DECAY_SHARE * steps), 0.02, 1.0)
    return warm * decay


def update_matrix(value, gradient, momentum, scale):
    momentum = MOMENTUM * momentum + (1 - MOMENTUM) * gradient
    direction = orthogonalize((1 - MOMENTUM) * gradient + MOMENTUM * momentum)
    stretch = math.sqrt(max(1.0, value.shape[0] / value.shape[1]))
    rate = MATRIX_RATE * scale
    return value * (1 - WEIGHT_DECAY * rate) - rate * stretch * direction, momentum


def update_vector(value, gradient, state, scale, step):
    """Adam, for the embedding and the norms."""
    first, second = state
    first = 0.9 * first + 0.1 * gradient
    second = 0.98 * second + 0.02 * gradient**2
    corrected = (first / (1 - 0.9 ** (step + 1))) / (jnp.sqrt(second / (1 - 0.98 ** (step + 1))) + 1e-9)
    return value - VECTOR_RATE * scale * corrected, (first, second)


def init_state(params):
    zeros = jnp.zeros_like
    return {name: zeros(value) if is_matrix(name) else (zeros(value), zeros(value)) for name, value in params.items()}


def make_step(config, steps):
    def step_function(params, state, step, batch):
        loss, gradients = jax.value_and_grad(model.weighted_loss)(params, config, *batch)
        norm = jnp.sqrt(sum(jnp.sum(g * g) for g in gradients.values()))
        scale = learning_scale(step, steps)
        new_params, new_state = {}, {}
        for name, value in params.items():
            if is_matrix(name):
                new_params[name], new_state[name] = update_matrix(value, gradients[name], state[name], scale)
            else:
                new_params[name], new_state[name] = update_vector(value, gradients[name], state[name], scale, step)
        return new_params, new_state, loss, norm

    return jax.jit(step_function, donate_argnums=(0, 1))


def evaluate(loss_function, params, batches):
    totals = [(float(loss_function(params, *batch)), float(batch[2].sum())) for batch in batches]
    return sum(loss * weight for loss, weight in totals) / sum(weight for _, weight in totals)


def save_progress(path, step: int, params, state) -> None:
    """So that a run that was interrupted can go on, with the same result."""
    partial_path = path.with_suffix(".partial")
    with partial_path.open("wb") as file:
        pickle.dump((step, jax.device_get(params), jax.device_get(state)), file)
    partial_path.rename(path)


def load_progress(path, config) -> tuple:
    if not path.exists():
        params = model.init_params(config, SEED)
        return 0, params, init_state(params)
    with path.open("rb") as file:
        return jax.tree.map(jnp.asarray, pickle.load(file))


def train(config, batches, held_out, steps, progress, save):
    first_step, params, state = load_progress(progress, config)
    first_step = int(first_step)
    step_function = make_step(config, steps)
    loss_function = jax.jit(lambda p, t, s, w: model.weighted_loss(p, config, t, s, w))
    print(f"{model.count_parameters(params):,} parameters, {steps} steps, the first is {first_step + 1}", flush=True)
    started, tokens_seen, recent = time.monotonic(), 0, []
    for step in range(first_step, steps):
        batch = batches[step % len(batches)]
        params, state, loss, norm = step_function(params, state, step, batch)
        tokens_seen += batch[0].size
        recent.append(float(loss))
        if (step + 1) % 25 == 0:
            seconds = time.monotonic() - started
            print(f"step {step + 1} loss {np.mean(recent):.3f} gradient {float(norm):.2f} "
                  f"tokens {tokens_seen:,} seconds {seconds:.0f}", flush=True)
            recent = []
            save_progress(progress, step + 1, params, state)
        if (step + 1) % 250 == 0 or step + 1 == steps:
            print(f"step {step + 1} held-out loss {evaluate(loss_function, params, held_out):.4f}", flush=True)
            save(params)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--documents", type=int, default=100000)
    parser.add_argument("--steps", type=int, default=0, help="0: one pass over the corpus")
    parser.add_argument("--progress", type=pathlib.Path, default=pathlib.Path("."), help="folder for the state of an interrupted run")
    options = parser.parse_args()
    documents = corpus.generate(SEED, options.documents)
    digest = corpus.digest(documents)
    print(f"corpus {len(documents)} documents, sha256 {digest}", flush=True)
    config = model.Config()
    tokenizer = export.train_tokenizer(corpus.plain_texts(documents), config.vocab)
    config = model.Config(vocab=tokenizer.get_vocab_size())
    held_out_documents = corpus.generate(SEED + 1, HELD_OUT_DOCUMENTS)
    held_out = packing.pack(tokenizer, held_out_documents, SEED)
    batches = packing.pack(tokenizer, documents, SEED)
    progress = options.progress / f"sublet-mini-{digest[:12]}.progress"
    train(config, batches, held_out, options.steps or len(batches), progress, partial(export.export, options.folder, config, tokenizer))


if __name__ == "__main__":
    main()
