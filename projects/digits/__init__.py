"""The demo's data set: handwritten digits on photographs, for three tasks."""
