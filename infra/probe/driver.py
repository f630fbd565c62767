"""nvidia-ml-py, which has no types, and the groups of its errors that matter here.

It loads libnvidia-ml.so.1 at the first `nvmlInit`; until then nothing of the driver is needed.
"""

from __future__ import annotations

from typing import Any

import pynvml

nvml: Any = pynvml
"""The bindings. Their functions raise `nvml.NVMLError`, whose `value` is the code of nvml.h."""

UNSUPPORTED = frozenset({nvml.NVML_ERROR_NOT_SUPPORTED, nvml.NVML_ERROR_FUNCTION_NOT_FOUND})
"""The card or its driver does not know the question."""

NO_SUCH = UNSUPPORTED | {nvml.NVML_ERROR_INVALID_ARGUMENT, nvml.NVML_ERROR_NOT_FOUND}
"""There is no card or instance of that name or number."""

GONE = frozenset(
    {
        nvml.NVML_ERROR_UNINITIALIZED,
        nvml.NVML_ERROR_DRIVER_NOT_LOADED,
        nvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH,
        nvml.NVML_ERROR_GPU_IS_LOST,
        nvml.NVML_ERROR_RESET_REQUIRED,
    }
)
"""The driver or the card is away: nothing answers until it has been opened anew."""
