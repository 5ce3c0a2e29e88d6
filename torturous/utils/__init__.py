"""Helpers around training: removable hooks (`hooks`) and input pipelines (`data`)."""
