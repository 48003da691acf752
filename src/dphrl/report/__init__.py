"""From a comparison's summary to what people read: an HTML page, figures, tables in the terminal."""

from __future__ import annotations

from dphrl.report.page.write_page import Extras, write_report
from dphrl.report.terminal import print_summary

__all__ = ["Extras", "print_summary", "write_report"]
