"""How busy a process and its GPUs are, sampled in the background.

`sample` says what is known, `visible` and `nvml` ask the driver, `host` needs none, `sampler`
does it again and again. It knows no models, no requests and no Ray.
"""
