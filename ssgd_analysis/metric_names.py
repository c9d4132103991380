"""Metrics as tables and pictures call them."""

NAMES = {
    "test_accuracy": "test accuracy",
    "train_accuracy": "train accuracy",
    "test_loss": "test loss",
    "train_loss": "train loss",
    "lambda_max": "λ_max",
    "trace": "trace",
    "adaptive_worst": "adaptive worst",
    "worst_case": "worst case",
    "expected": "expected rise",
    "sam": "SAM rise",
    "fisher_rao": "Fisher-Rao",
    "gradients": "gradients",
    "weight_norm": "‖w‖",
}
