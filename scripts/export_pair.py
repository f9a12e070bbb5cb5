"""Makes one directory of two trained models, or of three with --middle=DIR:

    python scripts/export_pair.py --drafter=DIR --expert=DIR --output=DIR --name=NAME

`--note=KEY=VALUE`, as often as wanted, is kept in its pair.json beside the configs and hours of
training.
"""

from absl import flags

from speccascade.runtime import app

_DRAFTER = flags.DEFINE_string("drafter", None, "The drafter's training workdir.")
_EXPERT = flags.DEFINE_string(
    "expert",
    None,
    "The expert's training workdir; that of a distilled drafter may be any source, and is not "
    "written: the pair names it.",
)
_MIDDLE = flags.DEFINE_string("middle", None, "The workdir of a model between the two, if any.")
_OUTPUT = flags.DEFINE_string("output", None, "Where the pair goes.")
_NAME = flags.DEFINE_string("name", None, "What the pair is called.")
_NOTES = flags.DEFINE_multi_string("note", [], "KEY=VALUE: the command, the machine, ...")
_DTYPE = flags.DEFINE_enum(
    "dtype", None, ["float32", "bfloat16"], "In which the pair computes; by default as trained."
)
_CHAT = flags.DEFINE_bool("chat", False, "Whether prompts go into the expert's chat template.")
_ROUNDED = flags.DEFINE_bool(
    "rounded", False, "Whether the files hold matrices as int8, half the bytes of bfloat16."
)
flags.mark_flags_as_required(["drafter", "expert", "output", "name"])


def main(argv):
    del argv
    from speccascade import pairs

    workdirs = {"drafter": _DRAFTER.value, "expert": _EXPERT.value}
    if _MIDDLE.value is not None:
        workdirs["middle"] = _MIDDLE.value
    pair = pairs.export_workdirs(
        workdirs,
        _OUTPUT.value,
        _NAME.value,
        _NOTES.value,
        _DTYPE.value,
        _CHAT.value,
        _ROUNDED.value,
    )
    print(f"{pair.name} ({pair.hash}) written to {_OUTPUT.value}")


if __name__ == "__main__":
    app.run(main)
