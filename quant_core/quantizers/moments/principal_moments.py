"""Second moments from few columns: directions as far as they can be known, and of the rest each input's variance."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from quant_core.quantizers.moments.feedback import Feedback
from quant_core.quantizers.moments.low_rank import low_rank_feedback

INDEPENDENT_PER_SAMPLE = 16
"""Columns of one sample overlap or are alike, so that at most so many of them count."""

_LARGEST_SHARE = 0.3
"""Columns that count, for each input, up to which directions stand for all of H."""
_LEAST_KEPT = 0.1
"""Share of a direction that is no chance, below which it is left out."""
_HALVINGS = 50
_COLUMNS_AN_INPUT, _COLUMNS_OF_FEW = 1.5, 3
"""Columns for each input that may be held for the directions, and where all of them are few numbers."""
_FEW_ELEMENTS = 1 << 22
"""Numbers in the columns of a layer, 16 MiB, up to which they are few."""
_FEWEST_INPUTS = 512
"""Inputs of the smallest layers whose directions are looked for."""
_TINY = 1e-30


@dataclass(frozen=True, eq=False)
class PrincipalMoments:
    """Moments of one layer's input columns, `H = F^T F + diag(rest) + mean mean^T`.

    Attributes:
        factor: F, the largest directions of the covariance, `[rank, inputs]`.
        rest: Variance of each input in all other directions, `[inputs]`.
        mean: Mean of x, `[1, inputs]`.
        chance: Variance that directions found in a single column have by chance alone; of n columns an n-th of it.
        columns: Number of columns averaged.
        samples: Number of samples they came from.
    """

    factor: Tensor
    rest: Tensor
    mean: Tensor
    chance: float
    columns: int
    samples: int

    @property
    def independent(self) -> int:
        """Columns that count, at most 16 of each sample."""
        return _independent(self.columns, self.samples)

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return int(self.factor.nbytes + self.rest.nbytes + self.mean.nbytes)

    @property
    def finite(self) -> bool:
        """Whether no input held NaN or infinity."""
        return bool(torch.isfinite(self.rest).all())

    def centred(self) -> PrincipalMoments:
        """Take the mean out: the moments of x - E[x].

        Returns:
            The covariance, and a mean of 0.
        """
        return replace(self, mean=torch.zeros_like(self.mean))

    def joined(self, other: PrincipalMoments) -> PrincipalMoments:
        """Average with the moments of other samples.

        Args:
            other: Moments of the same layer.

        Returns:
            Moments of all samples, each with the same weight; the distance of the two means is a direction of its own.
        """
        samples = self.samples + other.samples
        share = other.samples / samples
        between = (share * (1 - share)) ** 0.5 * (other.mean - self.mean)
        return PrincipalMoments(
            torch.cat([(1 - share) ** 0.5 * self.factor, share**0.5 * other.factor, between]),
            self.rest.lerp(other.rest, share),
            self.mean.lerp(other.mean, share),
            (1 - share) * self.chance + share * other.chance,
            self.columns + other.columns,
            samples,
        )

    def shrunk(self) -> Tensor:
        """Give H as `feedback` has it, in full.

        Returns:
            `[1, inputs, inputs]`.
        """
        factor, diagonal = self._pulled()
        return (factor.T @ factor + diagonal.diag())[None]

    def feedback(self) -> Feedback:
        """Factor H, pulled towards its diagonal.

        Of a direction with variance v in n columns that count the share `v / (v + chance / n)` is kept; the diagonal
        stays. That leaves nothing for the intensity of `InputMoments.shrunk` to do, which takes all alike.

        Returns:
            The feedback.
        """
        return low_rank_feedback(*self._pulled())

    def _pulled(self) -> tuple[Tensor, Tensor]:
        """A factor of what lies off the diagonal, and what is then missing on it."""
        variances, turn = torch.linalg.eigh((self.factor @ self.factor.T).double())
        variances = variances.clamp_min(_TINY)
        kept = variances / (variances + self.chance / self.independent)
        turn = (turn * kept.sqrt())[:, kept > _LEAST_KEPT].float()
        factor = turn.T @ self.factor
        rest = (self.factor.square().sum(0) - factor.square().sum(0)).clamp_min(0) + self.rest
        return torch.cat([factor, self.mean]), rest


def few_columns(groups: int, inputs: int, columns: int, samples: int) -> bool:
    """Tell whether a layer's columns are so few that principal directions say all that can be known of them.

    With 16 photographs the 2,304 and 4,608 inputs of ResNet-18's last layers have 784 columns of 7 x 7 places; on other
    photographs codes then lose 0.3 to 0.7 dB less than by all of H, whose smaller directions are those of chance.

    Args:
        groups: Groups of the layer.
        inputs: Inputs of each group.
        columns: Columns that will be seen.
        samples: Samples they come from.

    Returns:
        True in one group of 512 inputs or more with at most 1.5 times as many columns, 3 times where these take
        little memory, if those that count are at most 0.3 times as many.
    """
    return (
        groups == 1
        and inputs >= _FEWEST_INPUTS
        and columns <= (_COLUMNS_OF_FEW if columns * inputs <= _FEW_ELEMENTS else _COLUMNS_AN_INPUT) * inputs
        and _independent(columns, samples) <= _LARGEST_SHARE * inputs
    )


def principal_moments(columns: Tensor, samples: int) -> PrincipalMoments:
    """Find the largest directions of columns by products with random vectors.

    With X the centred columns by row and w random, Q is an orthonormal basis of `X X^T w` and `F = Q^T X` (Halko,
    Martinsson and Tropp, Finding structure with randomness, arXiv:0909.4061, algorithm 4.1 and equation 5.1, here for
    the rows of X). `F^T F` never exceeds `X^T X`, so that the rest has no negative variance.

    How much of a direction is chance is asked of the columns themselves, half against half: directions of one half with
    variances v have variances u in the other, and chance is what makes `sum v^2 / (v + chance)` equal `sum u`.

    Args:
        columns: `[columns, inputs]`, sample after sample; overwritten.
        samples: Samples they came from.

    Returns:
        Moments with as many directions as columns count; none and a variance that is not finite where columns are not.
    """
    count = len(columns)
    mean = columns.mean(0, keepdim=True)
    X = columns.sub_(mean).div_(count**0.5)
    variance = X.square().sum(0)
    if not bool(torch.isfinite(variance).all()):
        return PrincipalMoments(X[:0].cpu(), variance.cpu(), mean.cpu(), 0.0, count, samples)
    rank = _independent(count, samples)
    chance = torch.randn(count, rank, generator=torch.Generator().manual_seed(0)).to(X)
    Q = torch.linalg.qr(X @ (X.T @ chance))[0]
    factor = Q.T @ X
    rest = (variance - factor.square().sum(0)).clamp_min(0)
    Q, factor = Q.cpu(), factor.cpu()
    return PrincipalMoments(factor, rest.cpu(), mean.cpu(), _chance(Q, factor, rank), count, samples)


def _chance(basis: Tensor, factor: Tensor, independent: int) -> float:
    """Variance by chance of directions of a single column, in the mean of both halves as the one that gives them."""
    Q, F = basis.double(), factor.double()
    variances, directions = torch.linalg.eigh(F @ F.T)
    root = (directions * variances.clamp_min(0).sqrt()) @ directions.T
    middle = len(Q) // 2
    if not middle:
        return float(variances.sum())
    halves = [len(Q) / len(part) * root @ (part.T @ part) @ root for part in (Q[:middle], Q[middle:])]
    most = max(1, independent // 2)
    one, other = halves
    return most * (_half_chance(one, other, most) + _half_chance(other, one, most)) / 2


def _half_chance(one: Tensor, other: Tensor, most: int) -> float:
    found, directions = torch.linalg.eigh(one)
    found, directions = found[-most:].clamp_min(_TINY), directions[:, -most:]
    there = (directions * (other @ directions)).sum()
    low, high = torch.zeros(()), found.sum() ** 2 / there.clamp_min(_TINY)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        above = (found.square() / (found + middle)).sum() > there
        low, high = (middle, high) if above else (low, middle)
    return float(low)


def _independent(columns: int, samples: int) -> int:
    return min(columns, samples * INDEPENDENT_PER_SAMPLE)
