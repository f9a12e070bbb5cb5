"""From a config to files of answers in Spec-Bench's form, one for each setting, and tables of them.

`WORKDIR/model_answer/NAME.jsonl` has a line for each question, written when the question is
answered: started again, only the others are. All settings answer a question before the next one,
the expert alone first, so that what else the machine does falls on all alike.
"""

import json
import os
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import ml_collections
import tqdm

from speccascade import pairs, sharding
from speccascade.errors import UserError
from speccascade.inference.methods import EXPERT
from speccascade.inference.reading import expand
from speccascade.inference.setting import Setting, digest
from speccascade.inputs import paths, text_files, values
from speccascade.pairs import Pair
from speccascade.report import table
from speccascade.spec_bench import conversation, questions, speed
from speccascade.spec_bench.questions import Question
from speccascade.workdir.claim import claim, claim_workdir
from speccascade.workdir.growing import Growing

FOLDER = "model_answer"
_EXAMPLE = "configs/spec_bench.py"
_NEEDED = ("questions", "settings", "max_new_tokens")
# What a workdir may be given more of later.
_GROWS = ("spec_bench.settings", "spec_bench.most_of_each", "spec_bench.questions")


class Bench(NamedTuple):
    """A checked run.

    Attributes:
      config: what it depends on, JSON-ready.
      pair: the models.
      speaker: answers with them.
      settings: the expert's own decoding first, at every temperature.
      questions: those to be answered.
      first: keys the random draws of each question's first turn.
      content: hashes of the models, the tokenizer and the whole file of questions.
    """

    config: dict[str, Any]
    pair: Pair
    speaker: conversation.Speaker
    settings: list[Setting]
    questions: list[Question]
    first: dict[int | str, int]
    content: dict[str, str]


def prepare(config: ml_collections.ConfigDict) -> Bench:
    """Checks everything that can be known before long work starts, and loads it.

    Raises:
      UserError: a setting, the pair or a question is not as it must be.
    """
    values.section("", config, ("pair", "spec_bench"), _EXAMPLE)
    plain = values.json_ready({k: config[k] for k in ("pair", "spec_bench", "mesh") if k in config})
    section = values.section("spec_bench", plain["spec_bench"], _NEEDED, _EXAMPLE)
    if unknown := sorted(set(section) - {*_NEEDED, "most_of_each"}):
        raise UserError(f"spec_bench has unknown fields {', '.join(unknown)}; see {_EXAMPLE}")
    if not section["questions"]:
        raise UserError(
            "spec_bench.questions is missing; give Spec-Bench's question.jsonl, "
            "--config.spec_bench.questions=PATH"
        )
    most = values.whole("spec_bench.max_new_tokens", section["max_new_tokens"], 1)
    asked = expand(section["settings"])
    baselines = [Setting(EXPERT, temperature=s.temperature) for s in asked]
    settings = list(dict.fromkeys(baselines + asked))
    read = questions.read(section["questions"])
    content = {"questions": digest([list(question) for question in read])}
    first, turns = {}, 0
    for question in read:
        first[question.id] = turns
        turns += len(question.turns)
    if section.get("most_of_each") is not None:
        limit = values.whole("spec_bench.most_of_each", section["most_of_each"], 1)
        read = questions.limited(read, limit)
    if jax.process_count() > 1:
        raise UserError("conversations are answered by one process; run it alone")
    pair = pairs.load(plain["pair"], sharding.from_config(plain.get("mesh")))
    conversation.check(pair, read, most)
    speaker = conversation.Speaker(pair, most)
    for setting in settings:
        speaker.check(setting)
    content |= {"pair": pair.hash, "tokenizer": pair.tokenizer.content_hash}
    return Bench(plain, pair, speaker, settings, read, first, content)


def names(bench: Bench) -> dict[Setting, str]:
    """Returns the `model_id` of each setting, which is its file's name, too."""
    found: dict[Setting, str] = {}
    for setting in bench.settings:
        said = re.sub(r"[^\w.=+-]+", "-", f"{bench.pair.name} {setting}").strip("-")
        other = said in found.values()  # they differ in digits that are not shown
        found[setting] = f"{said}-{digest(setting.fields())[:8]}" if other else said
    return found


def run(config: ml_collections.ConfigDict, workdir: str) -> tuple[str, list[str]]:
    """Answers what is missing in `workdir`.

    Args:
      config: `pair` and `spec_bench`, see configs/spec_bench.py.
      workdir: made if it is missing; one made from another config is refused.

    Returns:
      The tables as Markdown, and the paths of what was written.

    Raises:
      UserError: bad input; nothing in the workdir is changed then.
    """
    workdir = paths.on_disk(workdir, "the answers")
    bench = prepare(config)
    named = names(bench)
    with claim(workdir) as check:
        claim_workdir(workdir, {**bench.config, "content": bench.content}, _GROWS)
        folder = os.path.join(workdir, FOLDER)
        os.makedirs(folder, exist_ok=True)
        files, known = {}, {}
        for setting, name in named.items():
            path = os.path.join(folder, f"{name}.jsonl")
            rows, data = text_files.read_journal(path)
            files[setting] = Growing(path, data, check)
            known[setting] = {row.get("question_id"): row for row in rows}
        for question in tqdm.tqdm(bench.questions, desc="questions", unit="question"):
            for setting in bench.settings:
                if question.id in known[setting]:
                    continue
                row = _row(bench, setting, named[setting], question)
                files[setting].add(f"{json.dumps(row)}\n".encode())
                known[setting][question.id] = row
        text, written = _tell(bench, known, named, workdir)
    return text, [os.path.join(folder, f"{name}.jsonl") for name in named.values()] + written


def _row(bench: Bench, setting: Setting, name: str, question: Question) -> dict[str, Any]:
    replies = list(bench.speaker.converse(setting, question, bench.first[question.id]))
    choice = {
        "index": 0,
        "turns": [reply.text for reply in replies],
        "decoding_steps": [len(reply.accept_lengths) for reply in replies],
        "new_tokens": [reply.new_tokens for reply in replies],
        "wall_time": [reply.seconds for reply in replies],
        "accept_lengths": [n for reply in replies for n in reply.accept_lengths],
    }
    return {
        "question_id": question.id,
        "category": question.category,
        "answer_id": digest([name, question.id]),
        "model_id": name,
        "choices": [choice],
        "tstamp": time.time(),
    }


def _tell(
    bench: Bench,
    known: Mapping[Setting, Mapping[int | str, Mapping[str, Any]]],
    named: Mapping[Setting, str],
    workdir: str,
) -> tuple[str, list[str]]:
    """Returns the tables of what is answered, and writes them."""
    tokenizer = bench.pair.tokenizer
    tasks = {question.category: question.task for question in bench.questions}

    def count(text: str) -> int:
        return len(tokenizer.encode(text, bos=True))

    def rows(setting: Setting) -> Sequence[Mapping[str, Any]]:
        return [known[setting][question.id] for question in bench.questions]

    speeds = {}
    for setting in bench.settings:
        expert = rows(Setting(EXPERT, temperature=setting.temperature))
        speeds[str(setting)] = speed.compare(rows(setting), expert, count, tasks)
    text = table.markdown(speed.tables(speeds))
    made = {
        "spec_bench.md": text,
        "spec_bench.csv": table.comma_separated(speed.records(speeds)),
    }
    for name, content in made.items():
        with open(os.path.join(workdir, name), "w") as file:
            file.write(content)
    return text, [os.path.join(workdir, name) for name in made]
