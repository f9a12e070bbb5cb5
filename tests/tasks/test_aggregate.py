import numpy as np
import pytest
import sacrebleu
from rouge_score import rouge_scorer

from speccascade.tasks import aggregate, overlap

WORDS = "the a cat dog sat ran on under mat, tree. big small and saw it".split()


def sentences(rng, number, most):
    return [" ".join(rng.choice(WORDS, rng.integers(1, most))) for _ in range(number)]


def of(texts, references):
    pairs = zip(texts, references, strict=True)
    return np.array([overlap.bleu_statistics(text, reference) for text, reference in pairs])


@pytest.mark.parametrize("most", [3, 6, 20])
def test_bleu_is_sacrebleus(most):
    rng = np.random.default_rng(most)
    for _ in range(20):
        references = sentences(rng, 12, most)
        texts = [
            r if rng.random() < 0.3 else t
            for r, t in zip(references, sentences(rng, 12, 9), strict=True)
        ]
        wanted = sacrebleu.corpus_bleu(texts, [references]).score
        assert aggregate.bleu(of(texts, references)) == pytest.approx(wanted, abs=1e-9)


@pytest.mark.parametrize(
    ("text", "reference", "score"),
    [
        ("one two three four five", "one two three four five", 100.0),
        # Precisions 4/4, 3/3, 2/2, 1/1 and a brevity of exp(1 - 6/4).
        ("one two three four", "one two three four five six", 100 * np.exp(-0.5)),
        # 4/5, 2/4, 0/3 counted as 1/2 match, 0/2 as 1/4.
        (
            "one two six four five",
            "one two three four five",
            100 * (4 / 5 * 2 / 4 * (0.5 / 3) * (0.25 / 2)) ** 0.25,
        ),
        ("six seven eight nine", "one two three four", 0.0),
        ("one two three", "one two three", 0.0),  # no 4-gram
        ("", "one two three four", 0.0),
    ],
)
def test_bleu_in_closed_form(text, reference, score):
    statistics = of([text], [reference])
    assert aggregate.bleu(statistics) == pytest.approx(score)
    assert sacrebleu.corpus_bleu([text], [[reference]]).score == pytest.approx(score)


def test_bleu_keeps_leading_axes_and_is_that_of_all_seeds_together():
    rng = np.random.default_rng(0)
    references = sentences(rng, 8, 12)
    seeds = [[r + " it" for r in references], references[::-1]]
    statistics = np.array([of(texts, references) for texts in seeds])
    one_by_one = [aggregate.bleu(s) for s in statistics]
    np.testing.assert_allclose(aggregate.bleu(statistics), one_by_one, rtol=1e-12)
    wanted = sacrebleu.corpus_bleu(sum(seeds, []), [references * 2]).score
    assert aggregate.bleu(statistics.mean(0)) == pytest.approx(wanted)


def test_rouge_2():
    # Two of three bigrams of the text are among the reference's four.
    assert overlap.rouge_2("a b c x", "a b c d e") == pytest.approx(100 * 4 / 7)
    assert overlap.rouge_2("cats were running", "cat were runs") == pytest.approx(100.0)  # stems
    assert overlap.rouge_2("", "a b") == overlap.rouge_2("a b", "") == 0.0
    scorer = rouge_scorer.RougeScorer(["rouge2"], use_stemmer=True)
    rng = np.random.default_rng(1)
    for text, reference in zip(sentences(rng, 20, 15), sentences(rng, 20, 15), strict=True):
        wanted = scorer.score(target=reference, prediction=text)["rouge2"].fmeasure
        assert overlap.rouge_2(text, reference) == pytest.approx(100 * wanted)


def test_mean():
    np.testing.assert_allclose(
        aggregate.statistic("mean")(np.array([[0.0, 1.0], [1.0, 1.0]])), [0.5, 1]
    )
