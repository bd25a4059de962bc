"""Structured logs of a daemon: one JSON object a line on standard error, where systemd's journal takes them.

Event names are constants, ``noun.verb``; values are ids, codes and numbers. Content never comes here (R13).
"""

from __future__ import annotations

import logging
import sys
from typing import TextIO

import structlog

__all__ = ["configure_logs"]


def configure_logs(level: str, file: TextIO | None = None) -> None:
    """Log from this level on (``debug``, ``info``, ``warning``, ``error``), to standard error unless told otherwise."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            # Class and place of an error, not its values: a traceback's locals may be anybody's.
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(sort_keys=True),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(file=file or sys.stderr),
    )
