"""llama.cpp in a process of its own, driven through its C interface: bench/engine.py sends it one JSON line a task.

Its batched decoding is used as its own server uses it: one call for the next token of all sequences. There is no
HTTP, no JSON and no text between its tokens.
"""

import ctypes
import json
import sys
import time

import llama_cpp
import numpy

# A batch as large as its own default.
BATCH_TOKENS = 2048


class Llama:
    def __init__(self, clock, path, threads, context, sequences):
        self.clock = clock
        llama_cpp.llama_backend_init()
        parameters = llama_cpp.llama_model_default_params()
        parameters.n_gpu_layers = 0
        self.model = llama_cpp.llama_model_load_from_file(path.encode(), parameters)
        if not self.model:
            raise SystemExit(f"llama.cpp cannot load {path}")
        parameters = llama_cpp.llama_context_default_params()
        parameters.n_ctx = context * sequences
        parameters.n_batch = BATCH_TOKENS
        parameters.n_seq_max = sequences
        parameters.n_threads = parameters.n_threads_batch = threads
        self.context = llama_cpp.llama_init_from_model(self.model, parameters)
        if not self.context:
            raise SystemExit("llama.cpp makes no context")
        self.vocabulary = llama_cpp.llama_n_vocab(llama_cpp.llama_model_get_vocab(self.model))
        self.batch = llama_cpp.llama_batch_init(BATCH_TOKENS, 0, 1)

    def forget(self):
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), True)

    def compute(self, rows):
        """Rows of token, position, sequence and whether its scores are wanted; gives the wanted ones."""
        wanted = []
        for start in range(0, len(rows), BATCH_TOKENS):
            part = rows[start:start + BATCH_TOKENS]
            batch = self.batch
            batch.n_tokens = len(part)
            for at, (token, position, sequence, wants) in enumerate(part):
                batch.token[at], batch.pos[at], batch.logits[at] = token, position, wants
                batch.n_seq_id[at] = 1
                batch.seq_id[at][0] = sequence
            if llama_cpp.llama_decode(self.context, batch) != 0:
                raise SystemExit("llama.cpp could not compute a batch")
            for at, row in enumerate(part):
                if row[3]:
                    logits = llama_cpp.llama_get_logits_ith(self.context, at)
                    wanted.append(numpy.ctypeslib.as_array(logits, (self.vocabulary,)).copy())
        return wanted

    def generate(self, prompts, count):
        """The likeliest tokens of all prompts at once; seconds of the prompts and of what follows the first tokens."""
        self.forget()
        rows = [(token, at, sequence, at + 1 == len(prompt)) for sequence, prompt in enumerate(prompts)
                for at, token in enumerate(prompt)]
        begun = self.clock()
        tokens = [[int(logits.argmax())] for logits in self.compute(rows)]
        first = self.clock()
        for step in range(count - 1):
            rows = [(own[-1], len(prompt) + step, sequence, True)
                    for sequence, (prompt, own) in enumerate(zip(prompts, tokens))]
            for own, logits in zip(tokens, self.compute(rows)):
                own.append(int(logits.argmax()))
        return {"tokens": tokens, "first": first - begun, "rest": self.clock() - first}

    def logits(self, tokens, file):
        """The scores after every token, into a file of numpy's."""
        self.forget()
        numpy.save(file, numpy.stack(self.compute([(token, at, 0, True) for at, token in enumerate(tokens)])))
        return {}


def quantize(source, target, kind):
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{kind}")
    if llama_cpp.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(parameters)) != 0:
        raise SystemExit(f"llama.cpp makes no {kind}")


def main():
    if sys.argv[1] == "quantize":
        return quantize(*sys.argv[2:])
    llama = Llama(getattr(time, sys.argv[1]), sys.argv[2], *(int(number) for number in sys.argv[3:]))
    print(json.dumps({"version": llama_cpp.__version__}), flush=True)
    for line in sys.stdin:
        task = json.loads(line)
        print(json.dumps(getattr(llama, task.pop("task"))(**task)), flush=True)


if __name__ == "__main__":
    main()
