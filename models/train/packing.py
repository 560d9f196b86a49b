"""Packs documents into rows of a few fixed lengths, and rows into batches of about the same number of tokens.

Short documents go to short rows: attention costs the square of the length, and most conversations are short.
"""

import numpy as np

ROW_LENGTHS = [129, 257, 513, 1025, 2049]
BATCH_TOKENS = 2048
EDGE_TOKENS = 4
EDGE_WEIGHT = 3.0


def encode(tokenizer, documents) -> list:
    """Each document is [(text, weight)]; the result is [(ids, weights)]."""
    pieces = [(text, weight, index) for index, document in enumerate(documents) for text, weight in document]
    encodings = tokenizer.encode_batch_fast([text for text, _, _ in pieces], add_special_tokens=False)
    encoded = [([], []) for _ in documents]
    for (_, weight, index), encoding in zip(pieces, encodings):
        encoded[index][0].extend(encoding.ids)
        encoded[index][1].extend(token_weights(weight, len(encoding.ids)))
    return encoded


def token_weights(weight: float, count: int) -> list:
    """The first tokens of an answer choose what it is about, and the last ones decide to stop: those few count more."""
    if weight < 1.0:
        return [weight] * count
    return [EDGE_WEIGHT if position < EDGE_TOKENS or position >= count - EDGE_TOKENS else weight for position in range(count)]


def fill_rows(encoded) -> dict:
    """Best fit, longest document first; the result maps a row length to its rows, and a row is (tokens, segments, weights).

    The gaps that long documents leave are filled with short ones, so that little of the arithmetic is spent on padding.
    """
    rows, with_room = {length: [] for length in ROW_LENGTHS}, {}
    for ids, weights in sorted(encoded, key=lambda item: -len(item[0])):
        room = next((room for room in range(len(ids), ROW_LENGTHS[-1]) if with_room.get(room)), None)
        if room is None:
            room = next(length for length in ROW_LENGTHS if length >= len(ids))
            row = ([], [], [])
            rows[room].append(row)
        else:
            row = with_room[room].pop()
        segment = row[1][-1] + 1 if row[1] else 0
        row[0].extend(ids)
        row[1].extend([segment] * len(ids))
        row[2].extend([0.0] + weights[1:])
        with_room.setdefault(room - len(ids), []).append(row)
    return rows


def stack(rows, length):
    tokens = np.zeros((len(rows), length), np.int32)
    segments = np.full((len(rows), length), -1, np.int32)
    weights = np.zeros((len(rows), length), np.float32)
    for index, (row_tokens, row_segments, row_weights) in enumerate(rows):
        tokens[index, : len(row_tokens)] = row_tokens
        segments[index, : len(row_tokens)] = row_segments
        weights[index, : len(row_tokens)] = row_weights
    return tokens, segments, weights


def pack(tokenizer, documents, seed: int) -> list:
    rng = np.random.default_rng(seed)
    everything = encode(tokenizer, documents)
    encoded = [item for item in everything if len(item[0]) <= ROW_LENGTHS[-1]]
    batches = []
    for length, rows in fill_rows(encoded).items():
        rows = [rows[index] for index in rng.permutation(len(rows))]
        per_batch = max(1, BATCH_TOKENS // (length - 1))
        batches += [stack(rows[i : i + per_batch], length) for i in range(0, len(rows) - per_batch + 1, per_batch)]
    lengths = sorted(len(item[0]) for item in encoded)
    total, trained = sum(lengths), sum(sum(item[1]) for item in encoded)
    print(f"{total:,} tokens, {trained:,.0f} weighted; median {lengths[len(lengths) // 2]}, longest {lengths[-1]}; "
          f"{len(everything) - len(encoded)} left out as too long; {len(batches)} batches", flush=True)
    return [batches[index] for index in rng.permutation(len(batches))]
