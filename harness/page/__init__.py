"""A sweep's page, report.html: one file that needs no network, made from the sweep's tables."""

from harness.page.document import write as write
