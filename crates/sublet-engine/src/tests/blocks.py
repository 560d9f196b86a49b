"""Writes blocks.txt: random blocks of every format with the values that the `gguf` package (0.19) decodes.

Run: pip install gguf==0.19.0 && python blocks.py > blocks.txt
"""

import numpy as np
from gguf import GGMLQuantizationType as Kind
from gguf import quants

NAMES = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"]
# Where the half-precision scales of a block stand, so that they can be made ordinary numbers.
HALVES = {"Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0],
          "Q2_K": [80, 82], "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208]}

random = np.random.default_rng(7)
for name in NAMES:
    kind = Kind[name]
    weights, size = {"Q4_0": (32, 18), "Q4_1": (32, 20), "Q5_0": (32, 22), "Q5_1": (32, 24), "Q8_0": (32, 34), "Q2_K": (256, 84),
                     "Q3_K": (256, 110), "Q4_K": (256, 144), "Q5_K": (256, 176), "Q6_K": (256, 210)}[name]
    blocks = random.integers(0, 256, (256 // weights, size), dtype=np.uint8)
    for at in HALVES[name]:
        scales = random.uniform(0.001, 0.1, len(blocks)).astype(np.float16)
        blocks[:, at:at + 2] = scales.view(np.uint8).reshape(-1, 2)
    values = quants.dequantize(blocks.reshape(1, -1), kind).astype("<f4")
    print(name, blocks.tobytes().hex(), values.tobytes().hex())
