"""The process that moves large files, so that training keeps its GIL."""
