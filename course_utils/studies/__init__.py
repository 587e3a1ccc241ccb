"""What serves one synthesis lesson, exported from it: one module a lesson."""
