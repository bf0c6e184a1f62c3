"""What a build made, why, and what proves it: a typed document, and HTML as a view of it.

May import only ``errors``, ``durable``, ``artifact``, ``spec``, ``repository`` and ``measure``. ``collect`` makes the
document of one release from what :class:`Known` holds; ``to_html`` renders it as one self-contained file.
"""

from tritonforge.report.collect import Known, collect
from tritonforge.report.document import Report
from tritonforge.report.html import to_html

__all__ = ["Known", "Report", "collect", "to_html"]
