"""The run's page: what came in, what was kept, how training went, how the model scores; as report.json and report.html."""

from headrace.report.gather import gather
from headrace.report.page import write_report
from headrace.report.scoreboard import beside_newest
from headrace.report.summary import summary_table

__all__ = ["beside_newest", "gather", "summary_table", "write_report"]
