"""Tests of what an optimizer declares about itself against its real steps."""
