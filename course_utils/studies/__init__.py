"""The runs that lessons export for their studies, one module a lesson, written by tools/build.py."""
