"""Is one ranking better than another? The measures of `compare` and of the check RELEVANCE. Pure functions.

ndcg        Järvelin and Kekäläinen, "Cumulated gain-based evaluation of IR techniques", ACM TOIS 20(4), 2002;
            the gain of a grade is 2^grade - 1 (Burges et al., "Learning to rank using gradient descent", 2005)
rbo         Webber, Moffat and Zobel, "A similarity measure for indefinite rankings", ACM TOIS 28(4), 2010
bootstrap   Efron, "Bootstrap methods: another look at the jackknife", 1979, paired by query; for search:
            Sakai, "Evaluating evaluation metrics based on the bootstrap", SIGIR 2006
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from enum import StrEnum
from itertools import islice

import msgspec

Key = tuple[str, str]
"""Resource type and id of a record."""
JUDGMENT = "judgment"
"""The resource type of judgments."""
GRADE_MAX = 3
NDCG_HITS = 10
RBO_P = 0.9
"""The weight of a rank by that of the rank before it: the first ten have 86 % of all."""
SAMPLES, SEED = 2000, 20020422
LOW, HIGH = 0.05, 0.95
JUDGED_MIN = 20
"""With fewer judged queries there is a report, and no verdict."""
PINNED_LOSS_MAX = 0.3
LOSS_MAX = 0.02
"""A loss that is not taken for one."""
LOST_SHARE_MAX = 0.05
WORST = 10


def ndcg(ranking: Sequence[Key], grades: Mapping[Key, int], hits: int = NDCG_HITS) -> float | None:
    """The normalised discounted cumulated gain of the first hits: 1 is the best order of all. A record without a grade
    has the grade 0. None where no record has a grade above 0: every order is the best then."""
    best = _gain(sorted(grades.values(), reverse=True)[:hits])
    return _gain([grades.get(key, 0) for key in ranking[:hits]]) / best if best else None


def _gain(grades: Sequence[int]) -> float:
    return sum((2.0**grade - 1) / math.log2(rank + 2) for rank, grade in enumerate(grades))


def rbo(one: Sequence[Key], other: Sequence[Key], p: float = RBO_P) -> float:
    """The rank-biased overlap of two rankings, up to the length of the shorter one: 1 for the same order, 0 for no
    common record. It is divided by the weight of these ranks. The plain sum would be below 1 for equal lists. Two empty
    rankings are the same, and one of them has nothing in common with another."""
    depth = min(len(one), len(other))
    if not depth:
        return 1.0 if len(one) == len(other) else 0.0
    seen: dict[Key, int] = {}
    common, total, weight, weights = 0, 0.0, 1.0, 0.0
    for rank, pair in enumerate(zip(one, other, strict=False), 1):
        for key in pair:
            seen[key] = seen.get(key, 0) + 1
            common += seen[key] == 2
        total += weight * common / rank
        weights += weight
        weight *= p
    return total / weights


def overlap(one: Collection[Key], other: Collection[Key]) -> float:
    """The share of the longer list that both have; 1 for two empty ones."""
    longer = max(len(one), len(other))
    return len(set(one) & set(other)) / longer if longer else 1.0


class Gain(msgspec.Struct, frozen=True):
    """The mean gain of nDCG over the judged queries, and the points that 5 % and 95 % of the samples are below."""

    mean: float
    low: float
    high: float


def bootstrap(gains: Sequence[float], samples: int = SAMPLES, seed: int = SEED) -> Gain:
    """The mean of paired gains, and how sure it is: each sample draws as many queries again, with replacement. The same
    gains have the same result."""
    count, places = len(gains), _places(seed, len(gains))
    means = sorted(math.fsum(gains[place] for place in islice(places, count)) / count for _ in range(samples))
    return Gain(math.fsum(gains) / count, _point(means, LOW), _point(means, HIGH))


def _places(seed: int, count: int) -> Iterator[int]:
    """Places below `count` for ever, by chance: the upper bits of a linear congruential generator (Knuth, MMIX)."""
    state = seed
    while True:
        state = (state * 6364136223846793005 + 1442695040888963407) & 0xFFFF_FFFF_FFFF_FFFF
        yield (state >> 32) * count >> 32


def _point(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


class Measured(msgspec.Struct, frozen=True):
    """What one query says: the numbers of hits, and the nDCG in both indexes if it is judged."""

    query: str
    live_hits: int
    shadow_hits: int
    live_ndcg: float | None = None
    shadow_ndcg: float | None = None
    pinned: bool = False

    @property
    def gain(self) -> float | None:
        """The gain of nDCG, without the noise of its last digits; None where the query is not judged."""
        if self.live_ndcg is None or self.shadow_ndcg is None:
            return None
        return round(self.shadow_ndcg - self.live_ndcg, 9)


class Outcome(StrEnum):
    """What a comparison says about a shadow."""

    BETTER = "better"
    NOT_WORSE = "not_worse"
    UNDECIDED = "undecided"
    """It may be better or worse: look at the worst queries."""
    WORSE = "worse"
    TOO_FEW = "too_few"
    """Fewer than twenty judged queries: a report, and no verdict."""
    UNJUDGED = "unjudged"
    """No judged query: nothing is known of the quality, and no query lost all of its hits but a few."""
    LOST_RESULTS = "lost_results"
    """No judged query, and too many have no hits any more."""


REFUSED = frozenset({Outcome.WORSE, Outcome.LOST_RESULTS})


class Verdict(msgspec.Struct, frozen=True):
    """Is the shadow better than the live index? `message` says it in a sentence; `judged` is the number of queries with
    judgments. `worst` are up to ten queries that lose most, the worst first. RELEVANCE refuses what is not `passed`."""

    outcome: Outcome
    passed: bool
    message: str
    judged: int = 0
    gain: Gain | None = None
    worst: list[str] = []


def judge(measured: Sequence[Measured]) -> Verdict:
    """The verdict on a shadow, from what the queries say."""
    gains = {one.query: one.gain for one in measured if one.gain is not None}
    losing = sorted((gain, query) for query, gain in gains.items() if gain < 0)
    worst = [query for _, query in losing[:WORST]]
    if not gains:
        return _unjudged(measured)
    gain = bootstrap(list(gains.values()))
    text = f"nDCG {gain.mean:+.3f} ({gain.low:+.3f} to {gain.high:+.3f}) over {len(gains)} judged queries"
    if len(gains) < JUDGED_MIN:
        text = f"{text}: a verdict needs {JUDGED_MIN}"
        return Verdict(Outcome.TOO_FEW, True, text, len(gains), gain, worst)
    lost = [f"{one.query!r:.80}" for one in measured if one.pinned and (one.gain or 0.0) < -PINNED_LOSS_MAX]
    if gain.high < 0 or lost:
        why = (
            f"pinned queries lose more than {PINNED_LOSS_MAX:g}: {', '.join(lost[:WORST])}" if lost else _named(losing)
        )
        return Verdict(Outcome.WORSE, False, f"the shadow is worse: {text}; {why}", len(gains), gain, worst)
    if gain.low > -LOSS_MAX:
        better = gain.low > 0
        text = f"the shadow is {'better' if better else 'not worse'}: {text}"
        return Verdict(Outcome.BETTER if better else Outcome.NOT_WORSE, True, text, len(gains), gain, worst)
    text = f"warning: the shadow may be worse: {text}; {_named(losing)}"
    return Verdict(Outcome.UNDECIDED, True, text, len(gains), gain, worst)


def _named(losing: Sequence[tuple[float, str]]) -> str:
    return "the worst: " + ", ".join(f"{query!r:.80} {gain:+.2f}" for gain, query in losing[:WORST])


def _unjudged(measured: Sequence[Measured]) -> Verdict:
    had = [one for one in measured if one.live_hits]
    lost = [one.query for one in had if not one.shadow_hits]
    text = f"{len(lost)} of {len(had)} queries with hits in the live index have none in the shadow"
    if len(lost) > LOST_SHARE_MAX * len(had):
        text += ": " + ", ".join(f"{query!r:.80}" for query in lost[:WORST])
        return Verdict(Outcome.LOST_RESULTS, False, text, worst=lost[:WORST])
    return Verdict(Outcome.UNJUDGED, True, f"no judged query; {text}", worst=lost[:WORST])


class Move(msgspec.Struct, frozen=True):
    """A record at another rank; ranks begin with 1."""

    key: Key
    before: int
    after: int


def moves(before: Sequence[Key], after: Sequence[Key]) -> list[Move]:
    """The records that both rankings have, at another rank, in the order of the second one."""
    ranks = {key: rank for rank, key in enumerate(before, 1)}
    return [Move(key, ranks[key], rank) for rank, key in enumerate(after, 1) if ranks.get(key, rank) != rank]
