"""Answers prompts with the plain-numpy model, greedily: sample.py FOLDER TOKENS PROMPT..."""

import pathlib
import sys

from reference import Reference


def main() -> None:
    reference = Reference(pathlib.Path(sys.argv[1]))
    for prompt in sys.argv[3:]:
        ids = reference.encode_chat(reference.render([{"role": "user", "content": prompt}]))
        produced = reference.continue_greedily(ids, int(sys.argv[2]))
        print(f"> {prompt}\n{reference.tokenizer.decode(produced)}\n")


if __name__ == "__main__":
    main()
