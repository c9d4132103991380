"""Measure how flat the minimum of your own network is, with an error bar on every number.

Run it with ``python examples/measure_your_model.py``; it takes a few seconds on one core.
"""

import torch
from sklearn.datasets import load_digits
from torch import nn

from ssgd_analysis import HessianOperator, Problem, flatness
from ssgd_analysis.curvature import survey

images, labels = load_digits(return_X_y=True)
x, y = torch.tensor(images, dtype=torch.float32)[:1297] / 16, torch.tensor(labels)[:1297]

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
for _ in range(300):  # the full batch, so that the network comes close to a minimum
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(x), y).backward()
    optimizer.step()

# The loss is measured over these batches. Several batches, so that there is a sampling error.
problem = Problem(model, nn.functional.cross_entropy, zip(x.split(128), y.split(128), strict=True))
print(f"train loss        {problem.mean_loss():.4f}")

H = HessianOperator(problem)
found = survey(H, 3, seed=0)  # eigenvalues, trace and spectral density from the same products
for rank, pair in enumerate(found.spectrum.largest, 1):
    print(f"eigenvalue {rank}      {pair.value:.3f} ± {pair.stderr:.3f} (examples)")
    assert pair.residual < 1e-3  # ‖Hv − λv‖ / |λ|: the pair solves the eigenproblem
print(f"trace             {found.trace.value:.2f} ± {found.trace.stderr:.2f} (probes)")
share = found.density.negative
print(f"negative share    {share.value:.1%}, between {share.low:.1%} and {share.high:.1%}")

# λ_max and trace change when the weights are rescaled, although the function does not. These two
# do not change: the noise, or the step, is relative to each weight.
for name, metric in (
    ("expected rise", flatness.expected(problem, sigma=0.1)),
    ("worst rise", flatness.adaptive_worst(problem, rho=0.5, starts=1)),
):
    print(f"{name:17} {metric.value:.4f} ± {metric.stderr:.4f}")
