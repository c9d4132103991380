"""Muon as a method."""

from ssgd_analysis.methods.sgd import SGD


class MuonMethod(SGD):
    """Muon: the plain gradient; hidden matrices take orthogonalised momentum steps.

    Equation, which weights count as hidden, and source (Jordan et al. 2024): the optimizer
    ``Muon`` in ``optimizers/muon.py``. The other weights take AdamW's steps.
    """

    OPTIMIZER = "muon"
