"""What was decided and why: `report.json`, and one self-contained HTML page with plots."""

from quant_core.report.render import render_html, write_report

__all__ = ["render_html", "write_report"]
