"""Writes a kit by which another engine's verifier is checked: `--out=DIR`.

    python scripts/export_vectors.py --out=runs/vectors
    python runs/vectors/check.py runs/vectors/vectors.jsonl ANSWERS.jsonl

vectors.jsonl has cases of every rule, token and block verification: distributions, drafts and
uniforms in; target, tokens kept, next token and the exact law out. answers.jsonl answers them
rightly, wrong/*.jsonl each with a mistake that engines have made. check.py needs nothing but
Python. See docs/conformance.md.
"""

from absl import flags

from speccascade.runtime import app

_OUT = flags.DEFINE_string("out", None, "The directory to write to.")
_SEED = flags.DEFINE_integer("seed", 0, "Of the cases.", lower_bound=0)
flags.mark_flags_as_required(["out"])


def main(argv):
    del argv
    from speccascade.conformance import kit

    print("\n".join(kit.write(_OUT.value, _SEED.value)))


if __name__ == "__main__":
    app.run(main)
