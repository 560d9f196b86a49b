"""Packs documents into rows of a few fixed lengths, and rows into batches of about the same number of tokens.

Short documents go to short rows: attention costs the square of the length, and most conversations are short.
"""

import numpy as np

ROW_LENGTHS = [129, 257, 513, 1025, 2049]
BATCH_TOKENS = 4096


def encode(tokenizer, documents) -> list:
    """Each document is [(text, weight)]; the result is [(ids, weights)]."""
    pieces = [(text, weight, index) for index, document in enumerate(documents) for text, weight in document]
    encodings = tokenizer.encode_batch_fast([text for text, _, _ in pieces], add_special_tokens=False)
    encoded = [([], []) for _ in documents]
    for (_, weight, index), encoding in zip(pieces, encodings):
        encoded[index][0].extend(encoding.ids)
        encoded[index][1].extend([weight] * len(encoding.ids))
    return encoded


def fill_rows(encoded, length) -> list:
    """First fit, in order, into the few rows that are open; a row is (tokens, segments, weights)."""
    open_rows, rows = [], []
    for ids, weights in encoded:
        fitting = next((row for row in open_rows if len(row[0]) + len(ids) <= length), None)
        if fitting is None:
            if len(open_rows) >= 8:
                rows.append(open_rows.pop(0))
            fitting = ([], [], [])
            open_rows.append(fitting)
        segment = fitting[1][-1] + 1 if fitting[1] else 0
        fitting[0].extend(ids)
        fitting[1].extend([segment] * len(ids))
        fitting[2].extend([0.0] + weights[1:])
    return rows + open_rows


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
    encoded = encode(tokenizer, documents)
    batches, shorter = [], 0
    for length in ROW_LENGTHS:
        fitting = [item for item in encoded if shorter < len(item[0]) <= length]
        shorter = length
        rows = fill_rows(fitting, length)
        per_batch = max(1, BATCH_TOKENS // (length - 1))
        batches += [stack(rows[i : i + per_batch], length) for i in range(0, len(rows) - per_batch + 1, per_batch)]
    too_long = sum(len(item[0]) > ROW_LENGTHS[-1] for item in encoded)
    lengths = sorted(len(item[0]) for item in encoded)
    total, trained = sum(lengths), sum(sum(item[1]) for item in encoded)
    print(f"{total:,} tokens, {trained:,.0f} weighted; median {lengths[len(lengths) // 2]}, longest {lengths[-1]}; "
          f"{too_long} left out as too long; {len(batches)} batches", flush=True)
    order = np.random.default_rng(seed).permutation(len(batches))
    return [batches[index] for index in order]
