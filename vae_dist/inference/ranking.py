"""Rankings by a score, measured on a class and all others: area under the ROC curve, and average precision."""

import torch
from jaxtyping import Bool, Float64
from torch import Tensor


def auroc(scores: Float64[Tensor, " n"], positive: Bool[Tensor, " n"]) -> float:
    """Return the probability that a positive scores higher than a negative, ties counting half.

    That is the area under the ROC curve (Hanley and McNeil 1982). NaN where one of the two is missing.
    """
    _, place, counts = scores.unique(return_inverse=True, return_counts=True)
    rank = (counts.cumsum(0) - (counts - 1) / 2)[place].double()  # from 1; ties share their mean
    positives = int(positive.sum())
    pairs = positives * (len(scores) - positives)
    wins = float(rank[positive].sum()) - positives * (positives + 1) / 2
    return wins / pairs if pairs else float("nan")


def average_precision(scores: Float64[Tensor, " n"], positive: Bool[Tensor, " n"]) -> float:
    """Return the precision at each threshold, from the highest score down, weighted by the recall that it adds.

    Equal scores share a threshold. NaN without positives.
    """
    _, place, counts = (-scores).unique(return_inverse=True, return_counts=True)
    found = torch.zeros(len(counts), dtype=torch.float64).index_add_(0, place, positive.double())
    precision = found.cumsum(0) / counts.cumsum(0)
    return float((found / positive.sum() * precision).sum())
