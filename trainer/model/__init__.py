"""Presets and adapters as sharded, stacked arrays with their functions."""
