"""The HTML page: one self-contained file."""

from ssgd_analysis.report.page import Section, write_page, write_table

__all__ = ["Section", "write_page", "write_table"]
