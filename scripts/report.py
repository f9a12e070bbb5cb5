"""Tables and figures of a sweep: `python scripts/report.py --workdir=DIR`.

Prints the main tables and what they say. DIR/report/report.md has the details and figures too;
beside it lie the tables as CSV and LaTeX. See docs/report.md.

With --html it writes DIR/report/report.html too, one file without a server: a sentence for each
temperature, plots whose marks tell their settings, a table to sort, answers side by side.

Several workdirs (--workdir=A --workdir=B) stand in one table, aligned by setting. With --answers,
and two settings as the tables write them, it shows where their answers differ:

    --answers --left="spec N=4 T=0" --right="token_v3 alpha=0.3 N=4 T=0"

The names that others use are columns to ask for, see docs/report.md:

    --columns=acceptance_length,acceptance_of_drafted,acceptance_by_position,time_to_first_token
"""

from absl import flags

from speccascade.runtime import app

_WORKDIR = flags.DEFINE_multi_string("workdir", None, "The workdir of scripts/evaluate.py.")
_ONLY_NEWEST = flags.DEFINE_bool(
    "only_newest", False, "Leave rows of another edition out, where they would be marked."
)
_COLUMNS = flags.DEFINE_list(
    "columns", [], "Further columns of the tables; settings.csv has all, see docs/report.md."
)
_BRIEF = flags.DEFINE_bool("brief", False, "Print a few figures and a sentence in their place.")
_HTML = flags.DEFINE_bool("html", False, "Write DIR/report/report.html, a page to look around in.")
_ANSWERS = flags.DEFINE_bool("answers", False, "Show where the answers of two settings differ.")
_LEFT = flags.DEFINE_string("left", None, "With --answers: a setting, or words that tell it.")
_RIGHT = flags.DEFINE_string("right", None, "With --answers: the other one.")
_SPLIT = flags.DEFINE_enum("split", "test", ["train", "validation", "test"], "With --answers.")
_LIMIT = flags.DEFINE_integer("limit", 10, "With --answers: examples shown.", lower_bound=1)
flags.mark_flags_as_required(["workdir"])


def main(argv):
    del argv
    from speccascade.errors import UserError

    first, *more = _WORKDIR.value
    if (_HTML.value or _BRIEF.value) and (more or _ANSWERS.value):
        raise UserError("--html and --brief take one --workdir, and no --answers")
    if not _ANSWERS.value and (_LEFT.value or _RIGHT.value):
        raise UserError("--left and --right need --answers")
    from speccascade.report import compare_answers, report, report_beside

    if _ANSWERS.value:
        if more or not (_LEFT.value and _RIGHT.value):
            raise UserError("--answers takes one --workdir, a --left and a --right")
        print(compare_answers(first, _LEFT.value, _RIGHT.value, _SPLIT.value, _LIMIT.value))
        return
    if more:
        table, paths = report_beside(_WORKDIR.value, _ONLY_NEWEST.value, _COLUMNS.value)
    else:
        asked = _ONLY_NEWEST.value, _COLUMNS.value, _HTML.value, _BRIEF.value
        table, paths = report(first, *asked)
    if _BRIEF.value:
        pages = [path for path in paths if path.endswith(("report.md", "report.html"))]
        paths = [f"The rest is in {' and '.join(pages)}."]
    print(table)
    print("\n".join(paths))


if __name__ == "__main__":
    app.run(main)
