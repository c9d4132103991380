"""Write ``options.md``, the settings of the commands, from their declarations."""

from pathlib import Path

from ssgd_analysis.settings import markdown_table
from ssgd_analysis.settings.commands import COMMAND_SETTINGS

PAGE = Path(__file__).with_name("options.md")
HEAD = """# Settings

These are the settings of the commands. On the command line a setting is an option with - for _, as
`--batch-size` (`metrics` is `--metric`, given once for each); in Python it is a field of the class
that is named. Options that name files and folders are not listed here. The page is made from the
declarations in `ssgd_analysis/settings/` by `python docs/make_options.py`.

`ssgd-analyze list settings train` prints the settings of one command. With `--json` it also gives
their JSON Schema under `schema` (types, defaults, limits, choices), from which other programs can
make a form or check values.
"""


def page() -> str:
    """The page's text."""
    parts = [
        f"## {command}: `{name}`\n\n{markdown_table(cls)}\n"
        for command, classes in COMMAND_SETTINGS.items()
        for name, cls in classes.items()
    ]
    return "\n".join([HEAD, *parts])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
