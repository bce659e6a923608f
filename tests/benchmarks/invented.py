"""A machine that nothing was measured on, for tests of the pages."""

MACHINE = {
    "date": "2026-01-02",
    "processor": "a processor",
    "cores": 2,
    "memory_gb": 4.0,
    "system": "Linux",
    "python": "3.11.0",
    "load_before": 0.1,
}
