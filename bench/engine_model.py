"""A Llama with random weights as GGUF files, and a small implementation of its own to check logits against.

The implementation shares nothing with either engine: it decodes the files' weights with the `gguf` package and
computes in f32 and f64 with numpy, one whole prompt at a time, without a cache. Activations are not rounded.
"""

import itertools
import string

import numpy
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter, TokenType
from gguf.quants import dequantize, quantize

SEED = 20260101
HIDDEN, LAYERS, HEADS, KV_HEADS, INTERMEDIATE, VOCABULARY, CONTEXT = 1024, 12, 16, 4, 2816, 16384, 4096
HEAD_WIDTH = HIDDEN // HEADS
EPSILON, THETA = 1e-5, 10_000.0
# Spread of the logits: wide enough that the likeliest tokens differ by more than rounding.
LOGIT_SPREAD = 2.5
# What every token of a prompt is drawn from: neither single bytes nor the end.
PLAIN_TOKENS = range(256, VOCABULARY - 1)
END = VOCABULARY - 1


def vocabulary():
    """Byte-level tokens and merges: every byte, then pairs and triples of letters, and an end."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = (byte for byte in range(256) if byte not in printable)
    names = {byte: chr(byte) for byte in printable} | {byte: chr(256 + index) for index, byte in enumerate(others)}
    tokens = [names[byte] for byte in range(256)]
    merges = []
    for count in (2, 3):
        for letters in itertools.product(string.ascii_lowercase, repeat=count):
            if len(tokens) == END:
                break
            text = "".join(letters)
            tokens.append(text)
            merges.append(f"{text[:-1]} {text[-1]}")
    return [*tokens, "<|end|>"], merges


def shapes():
    """Each matrix's name, shape, and the spread of its weights."""
    kv = KV_HEADS * HEAD_WIDTH
    into, back = HIDDEN ** -0.5, (2 * LAYERS) ** -0.5
    yield "token_embd.weight", (VOCABULARY, HIDDEN), 1.0
    for layer in range(LAYERS):
        # Wider keys than usual, so that attention chooses instead of taking the mean of everything.
        yield f"blk.{layer}.attn_q.weight", (HIDDEN, HIDDEN), into * 1.5
        yield f"blk.{layer}.attn_k.weight", (kv, HIDDEN), into * 1.5
        yield f"blk.{layer}.attn_v.weight", (kv, HIDDEN), into
        yield f"blk.{layer}.attn_output.weight", (HIDDEN, HIDDEN), into * back
        yield f"blk.{layer}.ffn_gate.weight", (INTERMEDIATE, HIDDEN), into
        yield f"blk.{layer}.ffn_up.weight", (INTERMEDIATE, HIDDEN), into
        yield f"blk.{layer}.ffn_down.weight", (HIDDEN, INTERMEDIATE), INTERMEDIATE ** -0.5 * back
    yield "output.weight", (VOCABULARY, HIDDEN), into * LOGIT_SPREAD


def parameters():
    return sum(rows * columns for _, (rows, columns), _ in shapes())


def write(path, kind):
    """Writes the model with all matrices in one format; the same seed gives the same weights in every file."""
    writer = GGUFWriter(path, "llama")
    writer.add_name("random")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INTERMEDIATE)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(EPSILON)
    writer.add_rope_dimension_count(HEAD_WIDTH)
    writer.add_rope_freq_base(THETA)
    writer.add_vocab_size(VOCABULARY)
    writer.add_file_type({"F16": 1, "Q4_0": 2, "Q8_0": 7}[kind])
    tokens, merges = vocabulary()
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([TokenType.NORMAL] * END + [TokenType.CONTROL])
    writer.add_token_merges(merges)
    writer.add_eos_token_id(END)
    writer.add_bos_token_id(END)
    writer.add_add_bos_token(False)
    random = numpy.random.default_rng(SEED)
    for name, shape, spread in shapes():
        values = random.standard_normal(shape, numpy.float32) * numpy.float32(spread)
        as_kind = GGMLQuantizationType[kind]
        writer.add_tensor(name, quantize(values, as_kind), raw_dtype=as_kind)
    norms = [f"blk.{layer}.{name}.weight" for layer in range(LAYERS) for name in ("attn_norm", "ffn_norm")]
    for name in [*norms, "output_norm.weight"]:
        writer.add_tensor(name, (1 + 0.1 * random.standard_normal(HIDDEN)).astype(numpy.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


class Reference:
    """Logits of a GGUF file of the model above."""

    def __init__(self, path):
        reader = GGUFReader(path)
        self.weights = {tensor.name: dequantize(tensor.data, tensor.tensor_type) for tensor in reader.tensors}

    def logits(self, tokens):
        """The scores after every token of a prompt."""
        hidden = self.weights["token_embd.weight"][tokens].astype(numpy.float64)
        for layer in range(LAYERS):
            own = lambda name: self.weights[f"blk.{layer}.{name}.weight"]
            normed = norm(hidden, own("attn_norm"))
            query = turn(product(normed, own("attn_q")).reshape(len(tokens), HEADS, HEAD_WIDTH))
            key = turn(product(normed, own("attn_k")).reshape(len(tokens), KV_HEADS, HEAD_WIDTH))
            value = product(normed, own("attn_v")).reshape(len(tokens), KV_HEADS, HEAD_WIDTH)
            hidden = hidden + product(attend(query, key, value), own("attn_output"))
            normed = norm(hidden, own("ffn_norm"))
            gate = product(normed, own("ffn_gate"))
            inner = gate / (1 + numpy.exp(-gate)) * product(normed, own("ffn_up"))
            hidden = hidden + product(inner, own("ffn_down"))
        return product(norm(hidden, self.weights["output_norm.weight"]), self.weights["output.weight"])

    def logprobs(self, tokens):
        logits = self.logits(tokens)
        largest = logits.max(-1, keepdims=True)
        return logits - largest - numpy.log(numpy.exp(logits - largest).sum(-1, keepdims=True))


def product(values, weights):
    """In f32; what is between products is in f64."""
    return (values.astype(numpy.float32) @ weights.T).astype(numpy.float64)


def norm(rows, weights):
    return rows / numpy.sqrt((rows * rows).mean(-1, keepdims=True) + EPSILON) * weights


def turn(heads):
    """Rotary embedding. A GGUF file of this architecture has the two values of a pair side by side."""
    angles = numpy.arange(len(heads))[:, None] * THETA ** (-numpy.arange(0, HEAD_WIDTH, 2) / HEAD_WIDTH)
    turned = (heads[..., 0::2] + 1j * heads[..., 1::2]) * numpy.exp(1j * angles)[:, None, :]
    return numpy.stack([turned.real, turned.imag], -1).reshape(heads.shape)


def attend(query, key, value):
    """Each group of query heads shares one head of keys and values; nothing sees what follows it."""
    count = len(query)
    later = numpy.triu(numpy.full((count, count), -numpy.inf), 1)
    mixed = numpy.empty_like(query)
    for head in range(HEADS):
        shared = head // (HEADS // KV_HEADS)
        scores = query[:, head] @ key[:, shared].T / HEAD_WIDTH ** 0.5 + later
        weights = numpy.exp(scores - scores.max(-1, keepdims=True))
        mixed[:, head] = weights / weights.sum(-1, keepdims=True) @ value[:, shared]
    return mixed.reshape(count, -1)
