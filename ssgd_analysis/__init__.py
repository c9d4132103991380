"""Did a training method really find a flatter minimum? Train, measure, compare, with errors.

``__init__.pyi`` declares the public names. Each is imported when it is first used, so that
``import ssgd_analysis`` is quick:

- a problem: ``Problem`` (model, loss, batches), which everything that measures takes;
- training: ``SSGD`` (a ``torch.optim.Optimizer``), ``TrainConfig``, ``train``, ``train_seeds``;
- curvature: ``HessianOperator``, ``GGNOperator``, ``FisherOperator``; ``eigenpairs``, ``trace``,
  ``spectral_density``;
- flatness: ``flatness.expected(problem)`` and so on, each metric a function of a problem;
- records of the commands: ``measure``, ``landscape``, ``connect``, ``compare``, ``run_study``.
"""

from importlib.metadata import version

import lazy_loader

__version__ = version("ssgd-analysis")
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
