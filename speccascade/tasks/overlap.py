"""How many words in a row a text shares with a reference: BLEU, ROUGE, by their usual packages."""

import functools


@functools.cache
def _bleu():
    from sacrebleu.metrics import BLEU

    return BLEU()


@functools.cache
def _rouge():
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rouge2"], use_stemmer=True)


def bleu_statistics(text: str, reference: str) -> tuple[float, ...]:
    """Counts what `tasks.aggregate.bleu` makes BLEU of, in words as sacrebleu's "13a" finds them.

    Returns:
      Words of text and reference, matching n-grams for n = 1..4, n-grams of the text for n = 1..4.
    """
    found = _bleu().corpus_score([text], [[reference]])
    return tuple(map(float, (found.sys_len, found.ref_len, *found.counts, *found.totals)))


def rouge_2(text: str, reference: str) -> float:
    """Returns ROUGE-2 F1 in percent (Lin 2004), words stemmed by Porter's rules."""
    return 100.0 * _rouge().score(reference, text)["rouge2"].fmeasure
