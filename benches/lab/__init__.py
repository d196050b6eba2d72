"""The laboratory of benches/run: what is measured, by whom it is loaded, and how the figures are written down."""
