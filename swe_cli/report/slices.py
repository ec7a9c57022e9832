"""What a cut hurt: its losses token by token, told by what the tokens are."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby, pairwise
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.special import stdtr, stdtrit

from swe_cli.contracts import IGNORED, Example, Questions, Setup
from swe_cli.data.tokens import TextDataset
from swe_cli.errors import SweError
from swe_cli.evaluation.loss import Evaluation, Measured
from swe_cli.report.compare import holm
from swe_cli.report.inference import LEVEL
from swe_cli.report.text import count

Array = np.ndarray[Any, np.dtype[Any]]
WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
HEADING = re.compile(r"^(?: = [^=].* = |#+ .+|(?i:chapter|book|act) [\divxlc]+\b.*)$", re.MULTILINE)
DENSE, WHOLE = "dense", "all tokens"
FEWEST, MOST = 20, 12  # windows that a slice touches; answers, or chapters, that are told apart
SENTENCES, NAMED = 5, 3


class Slices(NamedTuple):
    """Of the M predicted tokens of a split, row by row: each one's ``window`` and what is
    ``answered`` as a whole (itself; a question), int64 (M,). ``named``: which are of a slice, bool.
    """

    window: Array
    answered: Array
    named: Mapping[str, Array]


def slices_of(setup: Setup, evaluation: Evaluation) -> Slices:
    """Of text: characters, words, whether training held them, place in the window, chapter. Of
    questions: type, answer, and what the image's questions of another type tell of it.
    """
    batches = [*setup.windows(evaluation.split, evaluation.batch_size, **evaluation.cut)]
    sizes = np.concatenate([(batch["targets"] != IGNORED).sum(1) for batch in batches])
    row, dataset = np.repeat(np.arange(len(sizes)), sizes), setup.dataset
    if isinstance(dataset, Questions):
        window = np.concatenate([batch["window"] for batch in batches])[row]
        of_rows = _of_questions(dataset.examples(evaluation.split))
        answered, named = row, {name: of[row] for name, of in of_rows.items()}
    else:
        tokens, targets = (np.concatenate([b[of] for b in batches]) for of in ("tokens", "targets"))
        answered, window = np.arange(len(row)), row
        named = _of_text(dataset, evaluation.split, tokens, targets)
    told = {n: of for n, of in named.items() if len(set(window[of])) >= FEWEST and not of.all()}
    return Slices(window, answered, told)


def _of_text(dataset: Any, split: Any, tokens: Array, targets: Array) -> dict[str, Array]:
    predicted = targets != IGNORED
    # The first token of a window is read where no window before it predicted it.
    first = np.append(True, ~predicted[:-1, -1])
    read = np.column_stack([first, predicted])
    ours = np.column_stack([first & False, predicted])[read]
    text, start, end = _spelt(dataset, np.column_stack([tokens[:, 0], targets])[read])

    def touching(characters: Iterable[bool]) -> Any:
        upto = np.append(0, np.cumsum(np.fromiter(characters, bool, len(text))))
        return (upto[end] > upto[start])[ours]

    def within(spans: Iterable[tuple[int, int]]) -> Any:
        inside = np.zeros(len(text), bool)
        for begin, stop in spans:
            inside[max(0, begin) : stop] = True
        return touching(inside)

    words = {word.span(): word.group().casefold() for word in WORD.finditer(text)}
    starts = within((begin, begin + 1) for begin, _ in words)
    place = predicted.nonzero()[1] / targets.shape[1]
    named = {
        "capitals": touching(map(str.isupper, text)),
        "digits": touching(map(str.isdigit, text)),
        "punctuation marks": touching(not (c.isalnum() or c.isspace()) for c in text),
        "spaces": ~touching(not c.isspace() for c in text),
        "word starts": starts,
        "insides of words": within(words) & ~starts,
        "tokens in the first eighth of windows": place < 1 / 8,
        "tokens in the rest of their first half": (place >= 1 / 8) & (place < 1 / 2),
        "tokens in the second half of windows": place >= 1 / 2,
    }
    chapters = {heading.start(): heading.group().strip(" =#") for heading in HEADING.finditer(text)}
    if isinstance(dataset, TextDataset):
        chunks = dataset.text.chunks("train")
        seen = {word.casefold() for chunk in chunks for word in WORD.findall(chunk)}
        named["words seen in training"] = within(at for at in words if words[at] in seen)
        named["words new since training"] = within(at for at in words if words[at] not in seen)
        begins = dataset.text.splits[split][0]
        chapters |= {at - begins: name for at, name in dataset.text.chapters.items()}
    spans = [s for s in pairwise([*sorted(chapters), len(text)]) if s[0] < len(text) and s[1] > 0]
    few = spans if len(spans) <= MOST else []
    return named | {f"tokens of {chapters[at]}": within([(at, stop)]) for at, stop in few}


def _spelt(dataset: Any, ids: Array) -> tuple[str, Array, Array]:
    """What ids (n,) spell, and where in it each begins and ends; what begins a text is no text."""
    decode, bos = dataset.decode, getattr(getattr(dataset, "tokenizer", None), "bos", None)
    # Twice, since some tokenizers leave out the space before the first.
    spelt = {i: decode([i, i])[len(decode([i])) :] for i in set(ids.tolist()) if i != bos}
    pieces: list[tuple[str, int]] = []
    for broken, run in groupby(ids.tolist(), lambda token: "�" in spelt.get(token, "")):
        some = [*run]  # the bytes of a character are read together
        pieces += [(decode(some), len(some))] if broken else [(spelt.get(i, ""), 1) for i in some]
    lengths = np.array([len(piece) for piece, _ in pieces])
    ends, sizes = lengths.cumsum(), [size for _, size in pieces]
    return "".join(p for p, _ in pieces), np.repeat(ends - lengths, sizes), np.repeat(ends, sizes)


def _of_questions(examples: Sequence[Example]) -> dict[str, Array]:
    kinds, answers = (np.array([getattr(e, of) for e in examples]) for of in ("kind", "answer"))
    common = Counter(answers.tolist()).most_common(MOST)
    named = {f"questions of type {kind}": kinds == kind for kind in np.unique(kinds)}
    named |= {f"answers “{answer}”": answers == answer for answer, _ in common}
    for kind in np.unique(kinds):
        pairs = {(e.image, e.answer) for e in examples if e.kind == kind}
        told = dict(pairs)
        if len(told) == len(pairs) and len(values := set(told.values())) <= MOST:  # one an image
            own = np.array([told.get(e.image, "") for e in examples])
            named |= {f"images of {kind} {v}": (own == v) & (kinds != kind) for v in sorted(values)}
    return named


def hurt(
    cuts: Mapping[str, Sequence[Measured]], dense: Sequence[Measured], slices: Slices
) -> pd.DataFrame:
    """What each cut costs the tokens of every slice: a row ``against`` dense, and one against the
    difference of ``WHOLE``, since a hard cut hurts them all. And of ``by_difficulty``.

    Models hold ``token_nats`` and ``token_right`` (M,), the seeds in one order. Of a row:
    ``tokens``; ``difference_nats`` a token, paired, mean over seeds, ``low`` and ``high`` (95 %),
    ``p``, ``p_holm`` of all rows; ``lost`` and ``won``: answers of all seeds that turned wrong, or
    right, against what most dense seeds have. Windows are the clusters of a ratio (jackknife; t
    with Kish's number of them), so it holds for these trainings alone. A difference whose sign is
    not every seed's has a p of 1. Raises SweError for other windows than the slices', too few, or
    none that kept their tokens.
    """
    window, first = slices.window, np.unique(slices.answered, return_index=True)[1]
    shape, rows = (len(dense), len(window)), []
    if window.max() < FEWEST - 1:
        raise SweError("Too few windows tell what was hurt.", f"Evaluate on {FEWEST} or more.")

    def read(seeds: Sequence[Measured]) -> tuple[Array, Array]:
        nats = [of["token_nats"] for of in seeds if len(of.get("token_nats", ())) == shape[1]]
        if len(nats) != shape[0]:
            why = "These tokens were not measured at every seed, or by an older version."
            raise SweError(why, "Add --refresh to the swe sweep.")
        right = [np.minimum.reduceat(of["token_right"], first) for of in seeds]
        return np.array(nats, float), np.array(right) > 0

    def sums(values: Array) -> Array:  # (seeds, windows)
        return np.array([np.bincount(window, of_seed) for of_seed in values])

    reference, known = read(dense)
    modal = known.mean(0) > 0.5
    named = {**slices.named, **by_difficulty(reference, slices.answered)}
    for cut, seeds in cuts.items():
        nats, right = read(seeds)
        off, whole = nats - reference, np.zeros(0)
        flips = {"lost": modal & ~right, "won": ~modal & right}
        for name, mask in {WHOLE: np.array(True), **named}.items():
            held = np.broadcast_to(mask, shape)
            over, per, starts = sums(off * held), sums(held), held[:, first]
            d, n = over.mean(0), per.mean(0)
            without = (d.sum() - d) / (n.sum() - n)  # each window
            ratios = np.array([d.sum() / n.sum(), *over.sum(1) / per.sum(1), *without])
            about = {"cut": cut, "slice": name, "seeds": len(dense), "tokens": round(n.sum())}
            about |= {way: int((flip & starts).sum()) for way, flip in flips.items()}
            for against, other in ((DENSE, 0), (WHOLE, whole))[: 1 + (name != WHOLE)]:
                found = _tested(ratios - other, len(dense), n.sum() ** 2 / (n @ n) - 1)
                rows.append({**about, "against": against, **found})
            whole = ratios if name == WHOLE else whole
    frame = pd.DataFrame(rows)
    return frame.assign(p_holm=holm(frame["p"]))


def by_difficulty(nats: Array, answered: Array) -> dict[str, Array]:
    """Quarters of what is answered by its loss (seeds, M), each seed's by the dense model of the
    next: by its own they would regress to the mean. None of a single seed.
    """
    losses = (np.bincount(answered, of) for of in np.roll(nats, -1, axis=0))
    ranks = np.array([of.argsort(kind="stable").argsort() for of in losses])
    quarter = 4 * ranks[:, answered] // ranks.shape[1]
    names = ("easiest", "easy", "hard", "hardest") if len(nats) > 1 else ()
    return {f"tokens another seed finds {name}": quarter == at for at, name in enumerate(names)}


def _tested(ratios: Array, seeds: int, freedom: float) -> dict[str, float]:
    mean, of_seeds, without = ratios[0], ratios[1 : seeds + 1], ratios[seeds + 1 :]
    error = (((without - mean) ** 2).sum() * (1 - 1 / len(without))) ** 0.5
    half, p = stdtrit(freedom, 0.975) * error, np.nan
    if error > 0:  # else all are alike: there is nothing to test
        agree = abs(np.sign(of_seeds).sum()) == seeds
        p = 2 * stdtr(freedom, -abs(mean) / error) if agree else 1.0
    return {"difference_nats": mean, "low": mean - half, "high": mean + half, "p": p}


def sentences(frame: pd.DataFrame) -> list[str]:
    """Of ``hurt``: what was surely hurt, and surely more than all tokens; the worst first."""
    told: list[tuple[float, str]] = []
    for cut, rows in frame.groupby("cut", sort=False):
        dense, more = (rows[rows["against"] == of].set_index("slice") for of in (DENSE, WHOLE))
        sure = dense["p_holm"] < LEVEL
        excess = more["difference_nats"].where(more["p_holm"] < LEVEL).reindex(dense.index)
        excess = excess[sure & (dense["low"] > 0) & (excess > 0)]
        shown = [*excess.nlargest(NAMED).index, *sure.index[sure & (sure.index == WHOLE)]]
        by, half = dense["difference_nats"][shown], (dense["high"] - dense["low"])[shown] / 2
        verbs = by.gt(0).map({True: "worse by", False: "better by"})
        words = [f"{n} {verbs[n]} {abs(by[n]):.3f} ± {half[n]:.3f}" for n in shown]
        unsure = [*sure.index[~sure]]
        others = f" and {count(len(unsure) - NAMED, 'other')}" * (len(unsure) > NAMED)
        if words and unsure:
            words.append(f"{', '.join(unsure[:NAMED])}{others}: undecided")
        if not rows[["low", "high"]].any(axis=None):
            words = ["every loss is identical to the dense model's"]
        if words:
            told.append((max(by, default=0.0), f"At {cut}, {'; '.join(words)}."))
    said = [words for _, words in sorted(told, reverse=True)[:SENTENCES]]
    trainings = "these trainings" if frame["seeds"].max() > 1 else "this training"
    return [
        *(said or ["No difference to the dense model is sure."]),
        f"Nats a token, ± 95 % over windows, of {trainings} alone; told is what holds after Holm.",
    ]
