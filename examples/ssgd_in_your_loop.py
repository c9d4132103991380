"""Train a network with S-SGD in a training loop of your own, and with SGD beside it.

S-SGD takes two gradients a step, so SGD is given twice the epochs: both spend as many passes.
Run it with ``python examples/ssgd_in_your_loop.py``; it takes a few seconds on one core.
"""

import torch
from sklearn.datasets import load_digits
from torch import nn

from ssgd_analysis import SSGD

images, labels = load_digits(return_X_y=True)
x = torch.tensor(images, dtype=torch.float32) / 16
y = torch.tensor(labels)
x_train, y_train, x_test, y_test = x[:1297], y[:1297], x[1297:], y[1297:]


def train(method: str, epochs: int, seed: int = 0) -> float:
    """Train one network, and return its accuracy on the test images."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer: torch.optim.Optimizer
    if method == "S-SGD":  # any base optimizer class; the model tells which weights form a filter
        optimizer = SSGD(
            model.parameters(),
            torch.optim.SGD,
            noise_scale=0.3,
            model=model,
            lr=0.1,
            momentum=0.9,
        )
    else:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)

    for _ in range(epochs):
        for batch in torch.randperm(len(x_train)).split(128):

            def closure(batch: torch.Tensor = batch) -> torch.Tensor:
                optimizer.zero_grad()
                loss = nn.functional.cross_entropy(model(x_train[batch]), y_train[batch])
                loss.backward()
                return loss

            optimizer.step(closure)  # S-SGD calls it twice: at w + n and at w - n
        schedule.step()
    with torch.no_grad():
        return (model(x_test).argmax(dim=1) == y_test).float().mean().item()


for name, epochs in (("SGD", 20), ("S-SGD", 10)):
    print(f"{name:6} {epochs:2} epochs, test accuracy {train(name, epochs):.1%}")
