"""What the synthesis lessons export, one module a lesson, written by tools/build.py."""
