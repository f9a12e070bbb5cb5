"""Tables and figures of a sweep: `python scripts/report.py --workdir=DIR`.

Prints the main tables and what they say. DIR/report/report.md has the details and figures too;
beside it lie the tables as CSV and LaTeX. See docs/report.md.
"""

from absl import flags

from speccascade.runtime import app

_WORKDIR = flags.DEFINE_string("workdir", None, "The workdir of scripts/evaluate.py.")
flags.mark_flags_as_required(["workdir"])


def main(argv):
    del argv
    from speccascade.report import report

    table, paths = report(_WORKDIR.value)
    print(table)
    print("\n".join(paths))


if __name__ == "__main__":
    app.run(main)
