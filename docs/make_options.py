"""Write ``options.md``, the settings of the commands, from their declarations."""

from pathlib import Path

from ssgd_analysis.settings import markdown_table
from ssgd_analysis.settings.connection import ConnectionSettings
from ssgd_analysis.settings.landscape import LandscapeSettings
from ssgd_analysis.settings.sharpness import SharpnessFields
from ssgd_analysis.settings.training import TrainSettings

PAGE = Path(__file__).with_name("options.md")
COMMANDS = {
    "train": ("TrainConfig", TrainSettings),
    "sharpness": ("SharpnessSettings", SharpnessFields),
    "landscape": ("LandscapeSettings", LandscapeSettings),
    "connect": ("ConnectionSettings", ConnectionSettings),
}
HEAD = """# Settings

These are the settings of four commands. On the command line a setting is an option with - for _,
as `--batch-size`; in Python it is a field of the class that is named. The page is made from the
declarations in `ssgd_analysis/settings/` by `python docs/make_options.py`.
"""


def page() -> str:
    """The page's text."""
    parts = [
        f"## {command}: `{name}`\n\n{markdown_table(cls)}\n"
        for command, (name, cls) in COMMANDS.items()
    ]
    return "\n".join([HEAD, *parts])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
