"""File making: from scores and limits to a finished file, judged on samples that decided nothing."""

from quant_core.file_making.file_maker import FileMaker, Made

__all__ = ["FileMaker", "Made"]
