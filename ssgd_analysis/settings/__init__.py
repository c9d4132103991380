"""Settings of commands, methods and records, each declared once; nothing here imports torch."""

from ssgd_analysis.settings.setting import (
    Declaration,
    Settings,
    declarations,
    is_kind,
    json_schema,
    make_typed,
    markdown_table,
    read_assignments,
    setting,
)

__all__ = [
    "Declaration",
    "Settings",
    "declarations",
    "is_kind",
    "json_schema",
    "make_typed",
    "markdown_table",
    "read_assignments",
    "setting",
]
