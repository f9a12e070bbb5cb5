"""Debian's descriptions, from small lists and an apt-get that needs no network."""

import bz2
import lzma
import os
import stat

import ml_collections
import numpy as np
import pytest
import sacrebleu

from speccascade import tasks
from speccascade.errors import UserError
from speccascade.tasks import aggregate
from speccascade.tasks.debian import descriptions, lists

ENGLISH = """Package: altree
Description-md5: 1
Description-en: program to perform phylogeny-based analysis
 The first paragraph goes over
 two lines of a well-
 known text.
 .
  * a list
  * of two
 .
 The last paragraph of this one is here.

Package: libaltree-doc
Description-md5: 1
Description-en: another with the same text
 Something.

Package: only-english
Description-md5: 2
Description-en: nobody translated this
 It stays as it is.
"""
GERMAN = """Package: altree
Description-md5: 1
Description-de: Programm zur phylogenetischen Analyse
 Der erste Absatz geht über zwei Zeilen einer Ein-
 und Ausgabe.
 .
  * eine Liste
 .
 Der letzte Absatz dieses einen steht hier.
"""


def test_parse():
    found = descriptions.parse(ENGLISH, "en")
    assert list(found) == ["1", "2"]
    package, synopsis, paragraphs = found["1"]
    assert (package, synopsis) == ("altree", "program to perform phylogeny-based analysis")
    assert paragraphs == (
        "The first paragraph goes over two lines of a well-known text.",
        None,
        "The last paragraph of this one is here.",
    )
    (german,) = descriptions.parse(GERMAN, "de").values()
    assert german.paragraphs[0].endswith("einer Ein- und Ausgabe.")
    assert descriptions.parse(GERMAN, "en") == {}


def test_translations_join_on_the_hash():
    found = descriptions.translations(
        descriptions.parse(ENGLISH, "en"), descriptions.parse(GERMAN, "de")
    )
    assert descriptions._split_of("altree") == 0
    assert set(found["train"]) == {
        (
            "The first paragraph goes over two lines of a well-known text.",
            "Der erste Absatz geht über zwei Zeilen einer Ein- und Ausgabe.",
        ),
        ("The last paragraph of this one is here.", "Der letzte Absatz dieses einen steht hier."),
        ("program to perform phylogeny-based analysis", "Programm zur phylogenetischen Analyse"),
    }
    assert not found["validation"] and not found["test"]


def test_sentences_and_synopses_are_to_train_on():
    english = "It starts here. And it ends here, e.g. with this. Known elsewhere too."
    german = "Hier beginnt es. Und hier hört es auf. Anderswo auch bekannt."

    def make(held_out, first, second):
        whole = descriptions.Description("altree", "a synopsis of five words", (first,))
        other = descriptions.Description(held_out, "of another package", (second,))
        return {"1": whole, "2": other}

    names = (f"held{chr(97 + i)}" for i in range(26))
    held_out = next(name for name in names if descriptions._split_of(name) == 1)
    found = descriptions.translations(
        make(held_out, english, "Known elsewhere too."),
        make(held_out, german, "Auch anderswo ist es bekannt."),
    )
    assert found["validation"] == [("Known elsewhere too.", "Auch anderswo ist es bekannt.")]
    assert found["train"][0] == (english, german)  # paragraphs first
    # The synopsis says the same in both languages; the last sentence is one to validate with.
    assert sorted(found["train"][1:]) == [
        ("And it ends here, e.g. with this.", "Und hier hört es auf."),
        ("It starts here.", "Hier beginnt es."),
    ]
    longer = make(held_out, english + " One more.", "Known elsewhere too.")
    found = descriptions.translations(longer, make(held_out, german, "Auch anderswo bekannt."))
    assert len(found["train"]) == 1  # whose sentence is whose is not known


@pytest.mark.parametrize(
    ("english", "german"),
    [
        ("Too short.", "Zu kurz, dieser Satz."),
        ("See https://example.org for more of this.", "Siehe https://example.org für mehr davon."),
        ("It is the same text in both languages.", "It is the same text in both languages."),
        ("A text that is much longer than what should say it.", "Ein kurzer Text, kürzer."),
        ("Numbers 1 2 3 4 5 6 7 8 9 10 11 12 13 14.", "Zahlen 1 2 3 4 5 6 7 8 9 10 11 12 13."),
        ("This one was not translated by anybody.", "<trans>"),
    ],
)
def test_what_is_not_clean_is_left_out(english, german):
    def lone(text):
        return {"1": descriptions.Description("p", "s", (text,))}

    assert not any(descriptions.translations(lone(english), lone(german)).values())
    good = "This is a whole sentence in English.", "Dies ist ein ganzer Satz auf Deutsch."
    assert sum(map(len, descriptions.translations(*map(lone, good)).values())) == 1


@pytest.mark.parametrize(
    ("packages", "software"),
    [
        (("libfoo2", "foo", "foo-doc", "python3-foo", "ruby-foo", "libfoo-perl"), "foo"),
        (("golang-github-foo-bar-dev", "libghc-foo-dev", "fonts-foo"), "foo"),
        (("0ad", "0ad-data"), "ad"),
        (("python3",), "python3"),
    ],
)
def test_packages_of_one_software(packages, software):
    assert {descriptions.software(package) for package in packages} == {software}


def many(number):
    """Lists of `number` packages each with a paragraph of its own and one that is in all."""
    english, german = [], []
    for i in range(number):
        name = "".join(chr(97 + int(digit)) for digit in f"{i:04d}")
        english.append(
            f"Package: {name}\nDescription-md5: {i}\nDescription-en: synopsis of the tool {name}\n"
            f" The programm {name} does what it says, and it does so well enough for all who\n"
            " needs it every day.\n .\n This sentence is in all of them.\n"
        )
        german.append(
            f"Package: {name}\nDescription-md5: {i}\nDescription-de: Kurzes\n"
            f" Das Werkzeug {name} tut, was es sagt, und das gut genug für alle, die es jeden\n"
            " Tag brauchen.\n .\n Dieser Satz kommt in allen vor.\n"
        )
    return "\n".join(english), "\n".join(german)


@pytest.fixture
def directory(tmp_path):
    english, german = many(400)
    (tmp_path / "Translation-en.bz2").write_bytes(bz2.compress(english.encode()))
    (tmp_path / "Translation-de.xz").write_bytes(lzma.compress(german.encode()))
    return str(tmp_path)


def make(name, **fields):
    return tasks.make(ml_collections.ConfigDict({"name": name, **fields}))


def test_splits_share_nothing(directory):
    task = make("debian_en_de", path=directory, format="t5")
    found = {split: task.examples(split) for split in tasks.SPLITS}
    prompts = [e.prompt for examples in found.values() for e in examples]
    assert len(prompts) == len(set(prompts)) == 401
    common = "translate English to German: This sentence is in all of them."
    assert common in {e.prompt for e in found["train"]}
    assert 300 < len(found["train"]) < 380 and min(len(found[s]) for s in tasks.SPLITS) > 8
    assert len({e.id for examples in found.values() for e in examples}) == 401
    assert make("debian_en_de", path=directory, format="t5").examples("test") == found["test"]
    examples = found["test"]
    texts = [e.reference.replace("Werkzeug", "Programm") for e in examples]
    statistics = np.array([task.score(t, e) for t, e in zip(texts, examples, strict=True)])
    wanted = sacrebleu.corpus_bleu(texts, [[e.reference for e in examples]]).score
    assert aggregate.statistic(task.aggregate)(statistics) == pytest.approx(wanted)
    perfect = np.array([task.score(e.reference, e) for e in examples])
    assert aggregate.statistic(task.aggregate)(perfect) == pytest.approx(task.full_score)


def test_summaries(directory):
    task = make("debian_summaries", path=directory, format="t5")
    examples = [e for split in tasks.SPLITS for e in task.examples(split)]
    assert len(examples) == 400
    example = examples[0]
    assert example.prompt.startswith("summarize: The programm ")
    assert example.prompt.endswith("every day. This sentence is in all of them.")
    assert example.answer == example.reference and example.answer.startswith("synopsis of")
    assert task.score(example.answer, example) == pytest.approx(task.full_score)
    assert task.score("nothing", example) == 0.0


APT = """#!/usr/bin/env bash
for option in "$@"; do
  case $option in
    Dir::State::lists=*) lists=${{option#*=}} ;;
    APT::Status-Fd=*) status=${{option#*=}} ;;
  esac
done
echo "dlstatus:1:50.0:Retrieving file 1 of 2" >&"$status"
echo x >>"$lists/../runs"
{then}
"""
GIVE = """
for language in en de; do
  cp "$SOURCE/$language" "$lists/host_debian_dists_suite_main_i18n_Translation-$language"
done
cp "$SOURCE/en" "$lists/host_debian_dists_security_main_i18n_Translation-en"
cp "$SOURCE/de" "$lists/host_debian_dists_suite_non-free_i18n_Translation-de"
"""


@pytest.fixture
def apt(tmp_path, monkeypatch):
    """An apt-get on the PATH that does as it is told."""

    def install(then):
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        script = folder / "apt-get"
        script.write_text(APT.format(then=then))
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
        source = tmp_path / "source"
        source.mkdir(exist_ok=True)
        (source / "en").write_text(ENGLISH)
        (source / "de").write_text(GERMAN)
        monkeypatch.setenv("SOURCE", str(source))
        return tmp_path / "data"

    return install


def test_lists_are_fetched_once(apt):
    data = apt(GIVE)
    texts = lists.read(str(data))
    assert texts == {"en": ENGLISH + "\n\n", "de": GERMAN + "\n\n"}
    assert lists.read(str(data)) == texts
    assert (data / "apt" / "runs").read_text() == "x\n"
    os.remove(data / "Translation-de")  # as where a fetch was cut short
    assert lists.read(str(data)) == texts


def test_errors(apt, tmp_path, monkeypatch):
    data = apt("echo 'E: no such host' >&2; exit 100")
    message = "did not get Debian's descriptions .E: no such host.; put Translation-en and"
    with pytest.raises(UserError, match=message) as error:
        make("debian_en_de", path=str(data)).examples("test")
    assert "\n" not in str(error.value) and f"into {data}" in str(error.value)
    data = apt("exit 0")
    with pytest.raises(UserError, match="its sources have none in German"):
        lists.read(str(data))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="there is no apt-get here .*; put Translation-en"):
        lists.read(str(data))
    for language in lists.LANGUAGES:
        (data / f"Translation-{language}.bz2").write_bytes(b"not compressed")
    with pytest.raises(UserError, match="Translation-en.bz2 cannot be read .* remove it"):
        lists.read(str(data))
