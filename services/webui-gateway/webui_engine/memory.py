"""Memory in use, for GET /sdapi/v1/memory; called by `catalogue_routes.py`."""

import os
import resource
import sys
from pathlib import Path
from typing import Any

_STATM = Path("/proc/self/statm")


def ram() -> dict[str, float]:
    """Bytes: `used` by this process, `total` of the machine, and the difference as `free`, as A1111 counts."""
    page_bytes = os.sysconf("SC_PAGE_SIZE")
    total = os.sysconf("SC_PHYS_PAGES") * page_bytes
    if _STATM.exists():
        used = int(_STATM.read_text().split()[1]) * page_bytes
    else:  # only the peak is known outside Linux; macOS counts it in bytes
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        used = peak if sys.platform == "darwin" else peak * 1024
    return {"free": total - used, "used": used, "total": total}


def cuda() -> dict[str, Any]:
    """Bytes of the GPU in A1111's shape, or {"error": ...} without one. Looks at torch only if it is loaded already."""
    torch: Any = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return {"error": "unavailable"}
    free, total = torch.cuda.mem_get_info()
    stats = dict(torch.cuda.memory_stats())
    parts = {
        name: {"current": stats.get(f"{key}.all.current", 0), "peak": stats.get(f"{key}.all.peak", 0)}
        for name, key in (
            ("active", "active_bytes"),
            ("allocated", "allocated_bytes"),
            ("reserved", "reserved_bytes"),
            ("inactive", "inactive_split_bytes"),
        )
    }
    events = {"retries": stats.get("num_alloc_retries", 0), "oom": stats.get("num_ooms", 0)}
    return {"system": {"free": free, "used": total - free, "total": total}, **parts, "events": events}
