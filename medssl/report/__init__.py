"""Pictures and pages that a person judges results by."""

from medssl.report.charts import arms_picture, dice_boxplot, label_quality_picture
from medssl.report.curves import ecb_picture, losses_picture
from medssl.report.page import Section, html_report
from medssl.report.scans import qc_picture

__all__ = [
    "Section",
    "arms_picture",
    "dice_boxplot",
    "ecb_picture",
    "html_report",
    "label_quality_picture",
    "losses_picture",
    "qc_picture",
]
